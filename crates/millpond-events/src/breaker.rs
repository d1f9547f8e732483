//! The circuit breaker: after several failures in a row a subscriber stops receiving for a while, instead of failing every event.

use std::time::Duration;

/// When a subscriber's breaker opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerOptions {
    /// After how many failures in a row it opens: at least 1. Only failures that are retried count, panics and timeouts included.
    pub failures: u32,
    /// For how long it is open before one event is tried.
    pub pause: Duration,
}

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BreakerState {
    /// Events flow.
    Closed,
    /// Nothing is received.
    Open,
    /// One event is tried. If it succeeds the breaker closes, and otherwise it opens again.
    HalfOpen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Duration },
    HalfOpen { tried: bool },
}

/// What may be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    Any,
    /// One event, which [`Breaker::trial_begins`] reports.
    Trial,
    /// Nothing before this time.
    Until(Duration),
    /// Nothing before the trial has ended.
    TrialRuns,
}

/// How an attempt ended, as far as the breaker is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Success,
    Failure,
    /// The event is to blame, not what the handler works with.
    Neutral,
}

#[derive(Debug)]
pub(crate) struct Breaker {
    options: Option<BreakerOptions>,
    state: State,
}

impl Breaker {
    /// One that never opens, without options.
    pub(crate) const fn new(options: Option<BreakerOptions>) -> Self {
        Self { options, state: State::Closed { failures: 0 } }
    }

    pub(crate) const fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    pub(crate) fn permit(&mut self, now: Duration) -> Permit {
        match self.state {
            State::Closed { .. } => Permit::Any,
            State::Open { until } if now < until => Permit::Until(until),
            State::Open { .. } => {
                self.state = State::HalfOpen { tried: false };
                Permit::Trial
            }
            State::HalfOpen { tried: false } => Permit::Trial,
            State::HalfOpen { tried: true } => Permit::TrialRuns,
        }
    }

    pub(crate) fn trial_begins(&mut self) {
        if self.state == (State::HalfOpen { tried: false }) {
            self.state = State::HalfOpen { tried: true };
        }
    }

    /// Notes how an attempt ended. Returns whether the breaker opened.
    pub(crate) fn note(&mut self, ending: Ending, now: Duration) -> bool {
        let Some(options) = self.options else { return false };
        let failures = match (self.state, ending) {
            (State::Closed { failures }, Ending::Failure) => failures.saturating_add(1),
            (State::Closed { .. } | State::HalfOpen { .. }, Ending::Success) => {
                self.state = State::Closed { failures: 0 };
                return false;
            }
            (State::HalfOpen { .. }, Ending::Failure) => options.failures,
            (State::HalfOpen { .. }, Ending::Neutral) => {
                self.state = State::HalfOpen { tried: false };
                return false;
            }
            // What began before it opened says nothing about now.
            (State::Closed { .. }, Ending::Neutral) | (State::Open { .. }, _) => return false,
        };
        let opens = failures >= options.failures;
        self.state = match opens {
            true => State::Open { until: now.saturating_add(options.pause) },
            false => State::Closed { failures },
        };
        opens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> Breaker {
        Breaker::new(Some(BreakerOptions { failures: 3, pause: SECOND }))
    }

    fn opened() -> Breaker {
        let mut breaker = breaker();
        let opens: Vec<bool> = (0..3).map(|_| breaker.note(Ending::Failure, Duration::ZERO)).collect();
        assert_eq!(opens, [false, false, true]);
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_does_not() {
        let mut breaker = breaker();
        for ending in
            [Ending::Failure, Ending::Failure, Ending::Success, Ending::Failure, Ending::Neutral, Ending::Failure]
        {
            assert!(!breaker.note(ending, Duration::ZERO));
        }
        assert_eq!(breaker.permit(Duration::ZERO), Permit::Any);
        assert!(breaker.note(Ending::Failure, Duration::ZERO));
        assert_eq!(breaker.permit(Duration::ZERO), Permit::Until(SECOND));
    }

    #[test]
    fn after_the_pause_one_event_is_tried_and_decides() {
        for (ending, after) in [
            (Ending::Success, Permit::Any),
            (Ending::Failure, Permit::Until(SECOND * 2)),
            (Ending::Neutral, Permit::Trial),
        ] {
            let mut breaker = opened();
            assert_eq!(breaker.permit(SECOND), Permit::Trial);
            breaker.trial_begins();
            assert_eq!(breaker.permit(SECOND), Permit::TrialRuns);
            breaker.note(ending, SECOND);
            assert_eq!(breaker.permit(SECOND), after, "{ending:?}");
        }
    }

    #[test]
    fn what_began_before_it_opened_does_not_close_it() {
        let mut breaker = opened();
        assert!(!breaker.note(Ending::Success, Duration::ZERO));
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn without_options_it_never_opens() {
        let mut breaker = Breaker::new(None);
        assert!(!(0..1000).any(|_| breaker.note(Ending::Failure, Duration::ZERO)));
        assert_eq!(breaker.permit(Duration::ZERO), Permit::Any);
    }
}
