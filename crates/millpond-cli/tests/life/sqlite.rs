//! Messages as an SQLite database.

use super::Shell;
use rusqlite::Connection;
use rusqlite::types::Value;
use std::path::Path;

type Row = (String, i64, Value, String, Value);

fn rows(file: &Path) -> Vec<Row> {
    let database = Connection::open(file).unwrap();
    let mut all =
        database.prepare("SELECT topic, partition, key, headers, payload FROM messages ORDER BY nth").unwrap();
    let rows = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))).unwrap();
    rows.map(|row| row.unwrap()).collect()
}

/// The names of the files in a directory.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn export_as_a_database_has_all_of_a_message() {
    let (shell, folder) = (Shell::new(), tempfile::tempdir().unwrap());
    shell.ok(&["topics", "create", "orders", "--forever", "--partitions", "3"]);
    shell.ok(&["topics", "create", "mails", "--forever"]);
    shell.ok(&["publish", "orders", "{\"pizzas\": 2}", "-k", "table-7", "-H", "color=red"]);
    let bytes = folder.path().join("bytes");
    std::fs::write(&bytes, [0xff, 0x00, b'\n']).unwrap();
    shell.ok(&["publish", "mails", "--file", bytes.to_str().unwrap()]);
    shell.ok(&["publish", "mails", "12"]);

    let file = folder.path().join("orders.db");
    let to = file.to_str().unwrap();
    assert_eq!(shell.ok(&["export", "orders", "--sqlite", to]), format!("exported 1 messages to {to}\n"));
    let found = rows(&file);
    let told = &shell.json(&["tail", "orders"])[0];
    let headers = r#"[{"name":"color","value":"red"}]"#;
    assert_eq!(
        (&found[0].0, &found[0].2, found[0].3.as_str()),
        (&"orders".to_owned(), &"table-7".to_owned().into(), headers)
    );
    assert_eq!(found[0].4, "{\"pizzas\": 2}".to_owned().into());
    let database = Connection::open(&file).unwrap();
    let one = "SELECT position, id, timestamp_ms, json_extract(payload, '$.pizzas') FROM messages";
    let of_one: (String, String, i64, i64) =
        database.query_row(one, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
    assert_eq!((&told["position"], &told["id"]), (&of_one.0.into(), &of_one.1.into()));
    assert_eq!((told["timestamp_ms"].as_i64(), of_one.3), (Some(of_one.2), 2));

    // Nothing is written over.
    let before = std::fs::read(&file).unwrap();
    shell.fails(2, "is there already; nothing was written", &["export", "--sqlite", to]);
    assert!(std::fs::read(&file).unwrap() == before);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(shell.json(&["export", "--sqlite", to])[0]["exported"], 3);
    let found = rows(&file);
    assert_eq!(found.iter().map(|row| row.0.as_str()).collect::<Vec<_>>(), ["orders", "mails", "mails"]);
    assert_eq!((&found[1].2, found[1].3.as_str(), &found[1].4), (&Value::Null, "[]", &vec![0xff, 0, b'\n'].into()));
    assert_eq!(found[2].4, "12".to_owned().into(), "text stays text");
    assert_eq!(names(folder.path()).len(), 2, "nothing else is left");
    let ran = shell.run(&["export"]);
    assert!(ran.code == 2 && ran.err.contains("<TOPIC>"), "{}", ran.err);
}

/// A database is whole or not there.
#[test]
fn export_that_fails_leaves_no_database() {
    let (shell, folder) = (Shell::new(), tempfile::tempdir().unwrap());
    shell.ok(&["topics", "create", "t", "--forever"]);
    shell.ok(&["publish", "t", "first"]);
    shell.ok(&["publish", "t", &"x".repeat(900)]);
    let file = folder.path().join("t.db");
    let to = file.to_str().unwrap();
    shell.fails(4, "does not exist", &["export", "nothing", "--sqlite", to]);
    shell.fails(1, "could not write", &["export", "t", "--sqlite", "/nowhere/at/all/t.db"]);
    let flipped = std::fs::read_dir(shell.store()).unwrap().map(|entry| entry.unwrap().path()).find(|path| {
        let Ok(mut bytes) = std::fs::read(path) else { return false };
        let Some(at) = bytes.windows(100).position(|some| some == [b'x'; 100]) else { return false };
        bytes[at] ^= 1;
        std::fs::write(path, bytes).is_ok()
    });
    assert!(flipped.is_some());
    let ran = shell.run(&["export", "t", "--sqlite", to]);
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(names(folder.path()).is_empty());
}
