//! The pages in `docs/` say what is so: the example of the format is what the code writes, the format's page has been read
//! again since its code changed, every error and limit has a row, and every test and page that a page names is there.
//! Pages and comments keep to the words of the field, and the name of a type is given once.

mod errors;
mod example;
mod limits;
mod links;
mod named;
mod paths;
mod prose;
mod sources;
mod types;

use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every page, the folders of `docs/` included.
fn pages() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("there are docs") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "md") {
                found.push((path.clone(), read(path)));
            }
        }
    }
    found.sort();
    found
}
