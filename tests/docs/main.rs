//! The pages in `docs/` say what is so: the example of the format is what the code writes, the format's page has been read
//! again since its code changed, every error has a row, and every test that a page names is there.

mod errors;
mod example;
mod named;
mod sources;

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every page.
fn pages() -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(root().join("docs")).expect("there are docs");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    paths
        .filter(|path| path.extension().is_some_and(|ext| ext == "md"))
        .map(|path| (path.clone(), read(path)))
        .collect()
}
