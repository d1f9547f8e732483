//! Whether what is published under an id, or by a producer, was published before.
//!
//! Never here: a change of the state.

use crate::ids::{MessageId, PartitionId, TopicId};
use crate::record::Record;
use crate::state::{Acceptance, DedupId, Inputs, Rejection, Repeat, Sequence, State};
use smallvec::SmallVec;

impl State {
    /// Adds what the ids of these messages lead to, which go to the ends of their partitions. `runs` are all messages, in order.
    pub(in crate::state) fn decide_accept(
        &self,
        runs: &[(PartitionId, u32)],
        ids: &[DedupId],
        inputs: &Inputs<'_>,
        records: &mut Vec<Record>,
    ) -> Result<(), Rejection> {
        if ids.len() > 1 && has_doubles(ids.iter().map(|id| id.id).collect()) {
            return Err(Rejection::Invalid("an id is given to two messages of a frame"));
        }
        let now = self.store_time(inputs.steady);
        let (mut repeats, mut topics) = (Vec::new(), SmallVec::<[TopicId; 4]>::new());
        let (mut ids, mut nth) = (ids.iter().peekable(), 0u32);
        for &(partition, count) in runs {
            let base = self.catalog.end(partition);
            let end = nth.saturating_add(count);
            while let Some(&DedupId { part, id, body }) = ids.next_if(|id| id.part < end) {
                let topic = self.accepting(partition)?;
                if !topics.contains(&topic) {
                    topics.push(topic);
                }
                match self.accepted(topic, id, now) {
                    // seam: the bytes behind an id are not compared
                    Some(first) if first.body != body => {
                        return Err(Rejection::DedupConflict { part, first: Box::new(self.id_of(topic, first)?) });
                    }
                    Some(first) => repeats.push(Repeat { part, id: self.id_of(topic, first)?, lsn: first.lsn }),
                    None => {
                        let offset = base.checked_add(u64::from(part - nth)).ok_or(FULL)?;
                        let time = now.saturating_add(inputs.slack_ms);
                        // seam: an id dies with its process
                        records.push(Record::Accepted { partition, offset, id, body, time });
                    }
                }
            }
            nth = end;
        }
        self.check_windows(&topics)?;
        if ids.next().is_some() {
            return Err(Rejection::Invalid("an id of a message that is not in the frame"));
        }
        if repeats.is_empty() { Ok(()) } else { Err(Rejection::Repeated(repeats)) }
    }

    /// Adds what a producer's number leads to.
    pub(in crate::state) fn decide_sequence(
        &self,
        Sequence { topic, producer, number }: Sequence<'_>,
        records: &mut Vec<Record>,
    ) -> Result<(), Rejection> {
        self.check_sequenced(topic, producer, number)?;
        // seam: a sequence is not recorded
        records.push(Record::Sequenced { topic, producer: producer.to_owned(), sequence: number });
        Ok(())
    }

    /// Whether the ids of a frame go together, which were decided apart.
    pub(in crate::state) fn check_all_accepted(&self, records: &[Record]) -> Result<(), Rejection> {
        let (mut all, mut topics) = (Vec::new(), Vec::new());
        for record in records {
            let Record::Accepted { partition, id, .. } = record else { continue };
            all.push(*id);
            let topic = self.accepting(*partition)?;
            if topics.last() != Some(&topic) {
                topics.push(topic);
            }
        }
        // seam: appends of one frame are accepted under one id
        if has_doubles(all) {
            return Err(Rejection::Invalid("an id is given to two messages of a frame"));
        }
        topics.sort_unstable();
        topics.dedup();
        self.check_windows(&topics)
    }

    fn id_of(&self, topic: TopicId, accepted: &Acceptance) -> Result<MessageId, Rejection> {
        let Acceptance { partition, offset, epoch, .. } = *accepted;
        let (of, partition) = self.public_place(partition).ok_or(Rejection::UnknownPartition)?;
        if of == topic { Ok(MessageId { topic, partition, offset, epoch }) } else { Err(Rejection::UnknownPartition) }
    }
}

fn has_doubles(mut ids: Vec<u128>) -> bool {
    ids.sort_unstable();
    ids.windows(2).any(|pair| pair[0] == pair[1])
}

const FULL: Rejection = Rejection::LimitReached("messages in a partition");
