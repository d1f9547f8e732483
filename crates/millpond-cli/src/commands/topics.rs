//! Topics and groups: listing, creating, pausing and removing them.
//!
//! Never here: their messages.

use super::store::{group_json, paused};
use super::{confirm, group, topic};
use crate::args::{GroupChange, TopicChange};
use crate::output::{Done, Failure, Printer};
use millpond::{Error, GroupStats, Observer, Retention, Start, Store, TopicStats};
use serde_json::json;

pub fn list_topics(observer: &Observer, printer: &mut Printer) -> Done {
    let stats = observer.stats()?;
    let row = |topic: &TopicStats| {
        let (partitions, groups) = (topic.partitions.len(), topic.groups.len());
        let retention = topic.retention.to_string();
        let json = json!({ "name": topic.name, "partitions": partitions, "published": topic.published, "retention": retention, "groups": groups });
        let row = vec![
            topic.name.clone(),
            partitions.to_string(),
            topic.published.to_string(),
            retention,
            groups.to_string(),
        ];
        (row, json)
    };
    printer.table(&["TOPIC", "PARTITIONS", "PUBLISHED", "RETENTION", "GROUPS"], stats.topics.iter().map(row).collect())
}

pub fn topics(store: &Store, change: TopicChange, printer: &mut Printer) -> Done {
    match change {
        TopicChange::Create { name, partitions, streams, forever } => {
            match topic(store, &name) {
                Ok(_) => return Err(Failure::Usage(format!("topic {name:?} is there already"))),
                Err(Failure::Store(Error::NotFound { .. })) => {}
                Err(other) => return Err(other),
            }
            let mut builder = store.topic(&name).partitions(partitions);
            if streams {
                builder = builder.streams();
            } else if forever {
                builder = builder.retention(Retention::Forever);
            }
            builder.open()?;
            printer.show(|| json!({ "created": name }), || format!("created topic {name}"))
        }
        TopicChange::Remove { name, sure } => {
            let stats = store.stats()?;
            let found = stats.topics.iter().find(|topic| topic.name == name);
            let found = found.ok_or_else(|| Failure::Missing(format!("topic {name:?} does not exist")))?;
            let lag: u64 = found.groups.iter().map(|group| group.lag + group.dead).sum();
            let what = format!(
                "topic {name}: {} messages published, {} groups with {lag} messages to settle or dead, all of it is removed",
                found.published,
                found.groups.len()
            );
            confirm(&sure, &what)?;
            store.remove_topic(&name)?;
            printer.show(|| json!({ "removed": name }), || format!("removed topic {name}"))
        }
    }
}

pub fn list_groups(observer: &Observer, printer: &mut Printer) -> Done {
    let stats = observer.stats()?;
    let row = |topic: &TopicStats, group: &GroupStats| {
        let mut json = group_json(group);
        json["topic"] = topic.name.clone().into();
        let cells = [topic.name.clone(), group.name.clone(), group.lag.to_string(), group.dead.to_string()];
        (cells.into_iter().chain([paused(group).to_owned()]).collect(), json)
    };
    let rows = stats.topics.iter().flat_map(|topic| topic.groups.iter().map(|group| row(topic, group))).collect();
    printer.table(&["TOPIC", "GROUP", "LAG", "DEAD", ""], rows)
}

pub fn groups(store: &Store, change: GroupChange, printer: &mut Printer) -> Done {
    match change {
        GroupChange::Create { topic: of, name, max_attempts, visibility_timeout, latest } => {
            let topic = topic(store, &of)?;
            match topic.group(&name).create(false).open() {
                Ok(_) => return Err(Failure::Usage(format!("group {name:?} of topic {of:?} is there already"))),
                Err(Error::NotFound { .. }) => {}
                Err(other) => return Err(other.into()),
            }
            let mut builder = topic.group(&name);
            if let Some(attempts) = max_attempts {
                builder = builder.max_attempts(attempts);
            }
            if let Some(timeout) = visibility_timeout {
                builder = builder.visibility_timeout(timeout);
            }
            if latest {
                builder = builder.start(Start::Latest);
            }
            builder.open()?;
            printer.show(|| json!({ "created": name, "topic": of }), || format!("created group {name} of topic {of}"))
        }
        GroupChange::Remove { topic: of, name, sure } => {
            let topic = topic(store, &of)?;
            let stats = store.stats()?;
            let groups = stats.topics.iter().filter(|topic| topic.name == of).flat_map(|topic| &topic.groups);
            let found = groups.into_iter().find(|group| group.name == name);
            let found =
                found.ok_or_else(|| Failure::Missing(format!("group {name:?} of topic {of:?} does not exist")))?;
            let what = format!(
                "group {name} of topic {of}: its progress and {} dead letters are removed, {} messages are not settled",
                found.dead, found.lag
            );
            confirm(&sure, &what)?;
            topic.remove_group(&name)?;
            printer.show(|| json!({ "removed": name, "topic": of }), || format!("removed group {name} of topic {of}"))
        }
    }
}

pub fn pause(store: &Store, of: &str, name: &str, printer: &mut Printer) -> Done {
    group(store, of, name)?.pause()?;
    printer.show(|| json!({ "paused": name, "topic": of }), || format!("paused group {name} of topic {of}"))
}

pub fn resume(store: &Store, of: &str, name: &str, printer: &mut Printer) -> Done {
    group(store, of, name)?.resume()?;
    printer.show(|| json!({ "resumed": name, "topic": of }), || format!("resumed group {name} of topic {of}"))
}
