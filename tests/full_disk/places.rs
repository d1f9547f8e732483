//! Places where the room runs out: small file systems of their own, mounted for one test, and how they get room again.

use std::path::PathBuf;
use std::process::Command;

/// A small file system, unmounted when it is dropped.
pub(crate) struct Place {
    kind: Kind,
    // Mounted inside, so that it goes last.
    directory: tempfile::TempDir,
    ballast: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Tmpfs,
    Ext4,
    /// Where nothing is mapped and blocks that are there already may need others.
    Btrfs,
}

impl Kind {
    /// Where blocks that were allocated once are there.
    pub(crate) const SURE: [Self; 2] = [Self::Tmpfs, Self::Ext4];
}

impl Place {
    /// Mounts a file system with `room` MiB besides a ballast of as much, or says why that cannot be.
    pub(crate) fn new(kind: Kind, room: u64) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may mount a file system".to_owned());
        }
        let directory = tempfile::tempdir().expect("a directory");
        let at = directory.path().join("mounted");
        std::fs::create_dir(&at).expect("a directory can be made");
        match kind {
            Kind::Tmpfs => run(Command::new("mount")
                .args(["-t", "tmpfs", "-o"])
                .arg(format!("size={}m", 2 * room))
                .arg("none")
                .arg(&at))?,
            Kind::Ext4 => {
                let image = directory.path().join("image");
                // The journal and the tables of the file system take about as much as all the rest.
                let file = std::fs::File::create(&image).expect("an image can be made");
                file.set_len((3 * room + 4) << 20).expect("it has a length");
                run(Command::new("mkfs.ext4").args(["-q", "-m", "0", "-b", "1024", "-J", "size=1"]).arg(&image))?;
                run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at))?;
            }
            Kind::Btrfs => {
                let image = directory.path().join("image");
                let file = std::fs::File::create(&image).expect("an image can be made");
                // It takes no less, and keeps a good part of it for itself.
                file.set_len((3 * room).max(120) << 20).expect("it has a length");
                run(Command::new("mkfs.btrfs").args(["-q", "--mixed"]).arg(&image))?;
                run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at))?;
            }
        }
        let mut place = Self { kind, directory, ballast: None };
        let ballast = place.path().join("ballast");
        let file = std::fs::File::create(&ballast).expect("a file can be made");
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, room << 20).expect("the ballast fits");
        place.ballast = Some(ballast);
        Ok(place)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// Somebody else takes what is left, to the last byte.
    pub(crate) fn fill_up(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.path().join("more")).expect("a file can be made");
        for len in [1 << 20, 1 << 12, 1] {
            while file.write_all(&vec![7; len]).is_ok() && file.sync_data().is_ok() {}
        }
    }

    /// Somebody else's files go.
    pub(crate) fn make_room(&mut self) {
        drop(std::fs::remove_file(self.path().join("more")));
        if let Some(ballast) = self.ballast.take() {
            std::fs::remove_file(ballast).expect("it can be removed");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(why) = run(Command::new("umount").arg(self.path())) {
            // At once it is busy; what was open in a test that failed is closed in a moment.
            drop(run(Command::new("umount").arg("--lazy").arg(self.path())));
            say(&why);
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

/// Past the harness, which keeps what a passing test prints to itself.
pub(crate) fn say(what: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stderr(), "{what}"));
}

/// Runs `test` on each kind of small file system that this machine can make, and on which all of G14 holds.
pub(crate) fn on_each(room: u64, test: impl Fn(&mut Place)) {
    on(&Kind::SURE, room, test);
}

/// Runs `test` on each of these kinds that this machine can make.
pub(crate) fn on(kinds: &[Kind], room: u64, test: impl Fn(&mut Place)) {
    for &kind in kinds {
        match Place::new(kind, room) {
            Ok(mut place) => test(&mut place),
            Err(why) => say(&format!("SKIPPED on {kind:?}: {why}")),
        }
    }
}
