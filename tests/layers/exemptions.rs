//! What is allowed in one place only, each with its reason. An entry that is no longer needed is a complaint, too.

use std::collections::BTreeSet;

/// Each entry begins with a file and ends with its reason.
pub(crate) struct Exemptions {
    /// What one file may know beyond its layer or room.
    pub(crate) imports: &'static [(&'static str, &'static str, &'static str)],
    /// Functions in which a `match` may catch the rest of an enum that is named in full everywhere else.
    pub(crate) catch_alls: &'static [(&'static str, &'static str, &'static str)],
    /// Functions that are longer than allowed, with the length that they may not exceed.
    pub(crate) long_functions: &'static [(&'static str, &'static str, usize, &'static str)],
    /// Files that are longer than allowed, with the length that they may not exceed.
    pub(crate) long_files: &'static [(&'static str, usize, &'static str)],
}

/// What this crate needs.
pub(crate) const EXEMPTIONS: Exemptions = Exemptions {
    imports: &[
        ("index/guarded.rs", "disk", "asks whether this process is a forked child"),
        ("index/sled.rs", "disk", "asks whether this process is a forked child"),
    ],
    catch_alls: &[
        ("error.rs", "corruption", "asks for the two variants that rest on damage; all others have none to show"),
        ("error.rs", "source", "asks for the two variants that wrap another error"),
        ("fuzzing/operations.rs", "settle", "what is not known to have changed nothing may have settled"),
    ],
    long_functions: &[],
    long_files: &[],
};

/// The exemptions, and which of them were needed.
pub(crate) struct Leave<'a> {
    exempt: &'a Exemptions,
    unused: BTreeSet<String>,
}

impl<'a> Leave<'a> {
    pub(crate) fn new(exempt: &'a Exemptions) -> Self {
        let imports = exempt.imports.iter().map(|(path, known, _)| import(path, known));
        let catch_alls = exempt.catch_alls.iter().map(|(path, name, _)| catch_all(path, name));
        let functions = exempt.long_functions.iter().map(|(path, name, ..)| long_function(path, name));
        let files = exempt.long_files.iter().map(|(path, ..)| long_file(path));
        Self { exempt, unused: imports.chain(catch_alls).chain(functions).chain(files).collect() }
    }

    /// Whether a file may know this, which its layer must not.
    pub(crate) fn may_know(&mut self, path: &str, known: &str) -> bool {
        self.unused.remove(&import(path, known));
        self.exempt.imports.iter().any(|(file, exempt, _)| *file == path && *exempt == known)
    }

    /// Whether a `match` of this function may have a catch-all arm, which it has.
    pub(crate) fn may_catch_all(&mut self, path: &str, function: &str) -> bool {
        self.unused.remove(&catch_all(path, function));
        self.exempt.catch_alls.iter().any(|(file, name, _)| *file == path && *name == function)
    }

    /// How long a function may be that is longer than others.
    pub(crate) fn function_lines(&mut self, path: &str, function: &str) -> Option<usize> {
        self.unused.remove(&long_function(path, function));
        let listed = self.exempt.long_functions.iter().find(|(file, name, ..)| *file == path && *name == function);
        listed.map(|(_, _, len, _)| *len)
    }

    /// How long a file may be that is longer than others.
    pub(crate) fn file_lines(&mut self, path: &str) -> Option<usize> {
        self.unused.remove(&long_file(path));
        self.exempt.long_files.iter().find(|(file, ..)| *file == path).map(|(_, len, _)| *len)
    }

    /// A complaint about each exemption that nothing asked for.
    pub(crate) fn unused(self) -> impl Iterator<Item = String> {
        self.unused.into_iter()
    }
}

fn import(path: &str, known: &str) -> String {
    format!("{path}: may know `{known}` and does not")
}

fn catch_all(path: &str, function: &str) -> String {
    format!("{path}: fn {function} may have a catch-all arm and has none")
}

fn long_function(path: &str, function: &str) -> String {
    format!("{path}: fn {function} is listed as long and is not")
}

fn long_file(path: &str) -> String {
    format!("{path}: is listed as long and is not")
}
