//! Values by name, whose snapshot shares their pages.
//!
//! The values lie in numbered slots, in pages; the names say which. A slot's number means nothing outside. Never here: what the names name.

use super::sparse::Sparse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A map from names to values.
#[derive(Clone, Debug)]
pub(in crate::state) struct Named<V> {
    slots: Sparse<(Arc<str>, V)>,
    numbers: BTreeMap<Arc<str>, u64>,
    next: u64,
}

impl<V> Default for Named<V> {
    fn default() -> Self {
        Self { slots: Sparse::default(), numbers: BTreeMap::new(), next: 0 }
    }
}

impl<V: Clone> Named<V> {
    pub(in crate::state) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(in crate::state) fn get(&self, name: &str) -> Option<&V> {
        self.slots.get(*self.numbers.get(name)?).map(|(_, value)| value)
    }

    /// Puts a value in the place of what was there, which it returns.
    pub(in crate::state) fn set(&mut self, name: &str, value: V) -> Option<V> {
        if let Some((_, before)) = self.numbers.get(name).and_then(|number| self.slots.get_mut(*number)) {
            return Some(std::mem::replace(before, value));
        }
        let name: Arc<str> = name.into();
        self.numbers.insert(Arc::clone(&name), self.next);
        self.slots.insert(self.next, (name, value));
        self.next += 1;
        None
    }

    pub(in crate::state) fn remove(&mut self, name: &str) -> Option<V> {
        let number = self.numbers.remove(name)?;
        self.slots.remove(number).map(|(_, value)| value)
    }

    /// All values as they are now. Copies pointers.
    pub(in crate::state) fn snapshot(&self) -> NamedSnapshot<V> {
        NamedSnapshot(self.slots.clone())
    }
}

/// Values by name as they were.
#[derive(Clone, Debug)]
pub(crate) struct NamedSnapshot<V>(Sparse<(Arc<str>, V)>);

impl<V: Clone> NamedSnapshot<V> {
    /// All names, in order.
    pub(crate) fn names(&self) -> Vec<Arc<str>> {
        self.sorted().into_iter().map(|(name, _)| Arc::clone(name)).collect()
    }

    /// In the order of their names.
    pub(in crate::state) fn sorted(&self) -> Vec<(&Arc<str>, &V)> {
        let mut all: Vec<_> = self.0.iter().map(|(_, (name, value))| (name, value)).collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_keeps_what_was() {
        let mut named = Named::default();
        assert_eq!((named.set("b", 1), named.set("a", 2), named.set("b", 3)), (None, None, Some(1)));
        let before = named.snapshot();
        assert_eq!((named.remove("b"), named.remove("b"), named.set("b", 4)), (Some(3), None, None));
        assert_eq!(
            before.sorted().into_iter().map(|(name, value)| (&**name, *value)).collect::<Vec<_>>(),
            [("a", 2), ("b", 3)]
        );
        assert_eq!((named.len(), named.get("a"), named.get("b"), named.get("c")), (2, Some(&2), Some(&4), None));
    }
}
