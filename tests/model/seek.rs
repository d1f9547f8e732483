//! Groups that go on from elsewhere.
//!
//! Never here: what is right (see `reference`).

use crate::actions::{said, starts};
use crate::ops::{Begin, SeekTo};
use crate::runner::{Outcome, Runner, ensure};
use millpond::Seek;
use millpond::simulation::Clock;
use std::time::{Duration, UNIX_EPOCH};

impl Runner {
    pub(crate) fn seek(&mut self, group: usize, to: SeekTo) -> Outcome {
        let Some(group) = self.pick_group(group)? else { return Ok(()) };
        let (topic, wall) = (self.world().groups[group].topic, self.clock.wall().0);
        let (to, begin) = match to {
            SeekTo::Earliest => (Seek::Earliest, Begin::Earliest),
            SeekTo::Latest => (Seek::Latest, Begin::Latest),
            SeekTo::Ago(ms) => (Seek::Time(UNIX_EPOCH + Duration::from_millis(wall - ms)), Begin::Ago(ms)),
        };
        let handle = self.process()?.groups[&group].clone();
        let before = said("preview a seek", handle.preview_seek(to))?;
        let sought = said("seek", handle.seek(to))?;
        ensure!(before == sought, "a seek was to do {before:?}, and did {sought:?}");
        ensure!(sought.missing == 0, "no position was asked for: {sought:?}");
        self.ensure_durable()?;
        let stats = self.look()?;
        let is_whole = stats.log.bytes == stats.log.end.0;
        self.advance(|world| {
            let (unsettled, leased) = world.before_seek(group);
            // What it does not want may not have been looked at.
            let most = unsettled + world.groups[group].unwanted_max(|_| true);
            ensure!((unsettled..=most).contains(&sought.lag_before), "{unsettled} to {most} before: {sought:?}");
            ensure!(sought.leases_lost == leased, "{leased} were leased: {sought:?}");
            let places = world.topics[topic].iter().zip(0..).map(|(messages, partition)| {
                let kept_from = if is_whole { 0 } else { world.settled_before(topic, partition) };
                starts(messages, begin, wall, kept_from)
            });
            let grown = places.fold(vec![Vec::new()], |lists, here| {
                let with = |list: &Vec<u64>, start: u64| list.iter().copied().chain([start]).collect();
                lists.iter().flat_map(|list| here.iter().map(|start| with(list, *start))).collect::<Vec<Vec<u64>>>()
            });
            let total: u64 = world.topics[topic].iter().map(|messages| messages.len() as u64).sum();
            let mut fitting = Vec::new();
            for starts in &grown {
                let all = vec![0; starts.len()];
                let froms = match begin {
                    Begin::Earliest => vec![&all],
                    // Where a start is the first message that is kept, what is before it comes too.
                    Begin::Ago(_) if !is_whole => vec![&all, starts],
                    _ => vec![starts],
                };
                for from in froms {
                    let mut world = world.clone();
                    let kept = world.seek(group, from, starts);
                    if total - starts.iter().sum::<u64>() + kept == sought.lag {
                        fitting.push(world);
                    }
                }
            }
            ensure!(!fitting.is_empty(), "{sought:?} of {total} messages, expected starts {grown:?}");
            Ok(fitting)
        })
    }
}
