//! How the property tests of `src/` are run: a case that fails is kept below `tests/` and comes first from then on.

use proptest::test_runner::{Config, FileFailurePersistence};

/// As `proptest!`, with the configuration of this crate.
macro_rules! properties {
    ($($tests:tt)*) => {
        proptest::proptest! {
            #![proptest_config($crate::properties::config())]
            $($tests)*
        }
    };
}

pub(crate) fn config() -> Config {
    let mut config = Config::default();
    // Off where the environment says so.
    if let Some(persistence) = &mut config.failure_persistence {
        *persistence = Box::new(FileFailurePersistence::SourceParallel("tests/proptest-regressions"));
    }
    config
}
