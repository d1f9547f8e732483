//! Loop devices and mounts, by the machine's own tools, undone when they are dropped.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a tool. What it said, or why it failed.
pub fn tool(name: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(name).args(args).output().map_err(|error| format!("{name}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{name} {}: {}", args.join(" "), text(&output.stderr)))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths here are plain")
}

/// A loop device.
pub struct Loop(String);

impl Loop {
    pub fn attach(file: &Path) -> Result<Self, String> {
        tool("losetup", &["--find", "--show", text(file)]).map(Self)
    }

    pub fn format(&self) -> Result<(), String> {
        // A journal so small that it wraps in each run.
        tool(
            "mkfs.ext4",
            &["-q", "-F", "-J", "size=4", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", &self.0],
        )
        .map(drop)
    }

    pub fn mount(&self, at: &Path, options: &str) -> Result<Mount, String> {
        tool("mount", &["-t", "ext4", "-o", options, &self.0, text(at)])?;
        Ok(Mount(at.to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(error) = tool("losetup", &["--detach", &self.0]) {
            eprintln!("{error}");
        }
    }
}

/// A mounted file system.
pub struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = tool("umount", &[text(&self.0)]) {
            eprintln!("{error}");
        }
    }
}
