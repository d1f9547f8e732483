//! What each command does, by its subject.
//!
//! A command that only looks observes the store. Any other opens it, does its work through the public API, and closes it. Never here: the command line itself.

mod backup;
mod bench;
mod consume;
mod dead_letters;
mod peek;
mod probe;
mod publish;
mod repair;
mod schedule;
mod seek;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod streams;
mod tail;
mod top;
mod topics;
mod trace;
mod verify;

use crate::args::{Args, Command, DeadLetters, Export, Sure};
use crate::output::{Done, Failure, Printer};
use crate::text::plain;
use clap::CommandFactory;
use millpond::{Group, Observer, Store, Topic};
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

pub fn run(args: Args) -> Done {
    let (path, printer) = (args.store.as_path(), &mut Printer::new(args.output));
    match args.command {
        Command::Init => store::init(path, printer)?,
        Command::Topics { change: None } => topics::list_topics(&look(path)?, printer)?,
        Command::Topics { change: Some(change) } => with(path, |store| topics::topics(store, change, printer))?,
        Command::Groups { change: None } => topics::list_groups(&look(path)?, printer)?,
        Command::Groups { change: Some(change) } => with(path, |store| topics::groups(store, change, printer))?,
        Command::Pause { topic, group } => with(path, |store| topics::pause(store, &topic, &group, printer))?,
        Command::Resume { topic, group } => with(path, |store| topics::resume(store, &topic, &group, printer))?,
        Command::Seek(args) => with(path, |store| seek::seek(store, &args, printer))?,
        Command::Stats => store::stats(&look(path)?, printer)?,
        Command::Top(args) => top::top(&look(path)?, path, &args, printer)?,
        Command::Publish(args) => with(path, |store| publish::publish(store, args, printer))?,
        Command::Consume(args) => with(path, |store| consume::consume(store, &args, printer))?,
        Command::Tail(args) => tail::tail(&look(path)?, &args, printer)?,
        Command::Peek(args) => peek::peek(&look(path)?, &args, printer)?,
        Command::DeadLetters(DeadLetters::List { which }) => dead_letters::list(&look(path)?, &which, printer)?,
        Command::DeadLetters(DeadLetters::Show { topic, group, id }) => {
            dead_letters::show(&look(path)?, (&topic, &group, &id), printer)?;
        }
        Command::DeadLetters(DeadLetters::Redrive { which, change }) => {
            with(path, |store| dead_letters::redrive(store, &which, &change, printer))?;
        }
        Command::DeadLetters(DeadLetters::Discard { which, change }) => {
            with(path, |store| dead_letters::discard(store, &which, &change, printer))?;
        }
        Command::Stream(command) => with(path, |store| streams::stream(store, command, printer))?,
        Command::Cursors => store::cursors(&look(path)?, printer)?,
        Command::Export(args) => export(&look(path)?, &args, printer)?,
        Command::Import { topic } => with(path, |store| publish::import(store, &topic, printer))?,
        Command::Schedule(command) => with(path, |store| schedule::schedule(store, command, printer))?,
        Command::Backup { to } => backup::backup(&look(path)?, &to, printer)?,
        Command::Restore { from } => backup::restore(path, &from, printer)?,
        Command::Trace { correlation } => trace::trace(&look(path)?, &correlation, printer)?,
        Command::Verify => verify::verify(&look(path)?, printer)?,
        Command::Repair { change } => repair::repair(path, &change, printer)?,
        Command::Dump { from, max } => verify::dump(&look(path)?, from, max, printer)?,
        Command::Probe { syncs } => probe::probe(path, syncs, printer)?,
        Command::Bench(args) => bench::bench(&args, printer)?,
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "millpond", &mut text);
            printer.bytes(&text)?;
        }
        Command::Man { command } => man(&command, printer)?,
    }
    printer.flush()
}

fn export(observer: &Observer, args: &Export, printer: &mut Printer) -> Done {
    #[cfg(feature = "sqlite")]
    if let Some(file) = &args.sqlite {
        return sqlite::export(observer, args.topic.as_deref(), file, printer);
    }
    let topic = args.topic.as_ref().ok_or_else(|| Failure::Usage("give a topic".to_owned()))?;
    tail::export(observer, topic, printer)
}

/// The man page of `millpond`, or of the command that the names lead to.
fn man(names: &[String], printer: &mut Printer) -> Done {
    let mut command = Args::command();
    command.build();
    for name in names {
        let found = command.find_subcommand(name).cloned();
        command = found.ok_or_else(|| Failure::Missing(format!("there is no command {:?}", names.join(" "))))?;
    }
    let mut text = Vec::new();
    let rendered = clap_mangen::Man::new(command).render(&mut text);
    rendered.map_err(|error| Failure::Io("could not write the man page".to_owned(), error))?;
    printer.bytes(&text)
}

/// Looks into a store that is there, whoever has it.
fn look(path: &Path) -> Done<Observer> {
    Ok(Store::open_read_only(path)?)
}

/// Opens a store that is there, and closes it behind the work.
fn with(path: &Path, work: impl FnOnce(&Store) -> Done) -> Done {
    let store = Store::options().create(false).open(path)?;
    let done = work(&store);
    // What failed first is told.
    done.and(store.close().map_err(Failure::from))
}

fn topic(store: &Store, name: &str) -> Done<Topic> {
    Ok(store.topic(name).create(false).open()?)
}

fn group(store: &Store, of: &str, name: &str) -> Done<Group> {
    Ok(topic(store, of)?.group(name).create(false).open()?)
}

/// Asks before something is lost, unless told not to. `what` says what, and how much.
fn confirm(sure: &Sure, what: &str) -> Done {
    if sure.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage(format!("{what}: nothing was changed; give --yes to do it without being asked")));
    }
    let failed = |error| Failure::Io("could not ask".to_owned(), error);
    write!(io::stderr(), "{}. Go on? [y/N] ", plain(what)).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::Declined),
    }
}
