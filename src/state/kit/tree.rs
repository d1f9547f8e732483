//! An ordered map whose clone copies a few pointers: what does not change afterwards is shared.
//!
//! A tree of fixed height: a root, directories, leaves. Leaves are small, so that the first change after a clone copies little;
//! the root is short, so that a clone does. Never here: what keys and values mean.

use std::sync::Arc;

/// The most entries of a leaf: of 56 bytes each, they take 2.6 KiB.
const LEAF_MAX: usize = 48;
/// The most leaves of a directory.
const DIRECTORY_MAX: usize = 128;

/// Children in the order of their keys, each with the lowest key that it may hold. A key below the first belongs to the first.
type Children<K, C> = Vec<(K, Arc<C>)>;

type Leaf<K, V> = Vec<(K, V)>;

#[derive(Clone, Debug)]
struct Directory<K, V> {
    leaves: Children<K, Leaf<K, V>>,
}

/// The map. It never gives up its last leaf, so that one that is empty between two entries does not allocate for each.
#[derive(Clone, Debug)]
pub(in crate::state) struct Tree<K, V> {
    directories: Children<K, Directory<K, V>>,
    len: usize,
}

impl<K, V> Default for Tree<K, V> {
    fn default() -> Self {
        Self { directories: Vec::new(), len: 0 }
    }
}

/// Which child a key belongs to. There is at least one.
#[inline]
fn child<K: Ord, C>(children: &Children<K, C>, key: &K) -> usize {
    // Most maps are small.
    if children.len() == 1 { 0 } else { children.partition_point(|(low, _)| low <= key).saturating_sub(1) }
}

#[inline]
fn find<K: Ord, V>(leaf: &Leaf<K, V>, key: &K) -> Result<usize, usize> {
    match leaf.last() {
        Some((last, _)) if last < key => Err(leaf.len()),
        Some(_) if leaf.first().is_some_and(|(first, _)| first == key) => Ok(0),
        _ => leaf.binary_search_by(|(other, _)| other.cmp(key)),
    }
}

/// Joins child `at` with its neighbours for as long as it is nearly empty and both together fill a child by three quarters at most.
/// Then no two neighbours there are nearly empty.
fn join<K: Copy, C: Clone>(
    children: &mut Children<K, C>,
    at: usize,
    max: usize,
    len: impl Fn(&C) -> usize,
    append: impl Fn(&mut C, C),
) {
    let mut at = at.min(children.len().saturating_sub(1));
    while children.get(at).is_some_and(|(_, child)| len(child) < max / 4) {
        let fits = |left: usize| match (children.get(left), children.get(left + 1)) {
            (Some((_, left)), Some((_, right))) => len(left) + len(right) <= max / 4 * 3,
            _ => false,
        };
        let Some(left) = [Some(at), at.checked_sub(1)].into_iter().flatten().find(|left| fits(*left)) else { return };
        let (_, right) = children.remove(left + 1);
        append(Arc::make_mut(&mut children[left].1), Arc::unwrap_or_clone(right));
        at = left;
    }
}

impl<K: Ord + Copy, V: Clone> Directory<K, V> {
    fn join(&mut self, at: usize) {
        join(&mut self.leaves, at, LEAF_MAX, Vec::len, |left, right| left.extend(right));
    }

    fn append(&mut self, other: Self) {
        let seam = self.leaves.len();
        self.leaves.extend(other.leaves);
        self.join(seam);
    }
}

impl<K: Ord + Copy, V: Clone> Tree<K, V> {
    pub(in crate::state) fn len(&self) -> usize {
        self.len
    }

    /// How many pointers a clone copies.
    #[cfg(test)]
    pub(in crate::state) fn pages(&self) -> usize {
        self.directories.len()
    }

    #[inline]
    pub(in crate::state) fn get(&self, key: &K) -> Option<&V> {
        let (_, directory) = self.directories.get(child(&self.directories, key))?;
        let (_, leaf) = directory.leaves.get(child(&directory.leaves, key))?;
        let at = find(leaf, key).ok()?;
        leaf.get(at).map(|(_, value)| value)
    }

    #[inline]
    fn leaf_mut(&mut self, key: &K) -> Option<&mut Leaf<K, V>> {
        let at = child(&self.directories, key);
        let directory = Arc::make_mut(&mut self.directories.get_mut(at)?.1);
        let at = child(&directory.leaves, key);
        Some(Arc::make_mut(&mut directory.leaves.get_mut(at)?.1))
    }

    #[inline]
    pub(in crate::state) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let leaf = self.leaf_mut(key)?;
        let at = find(leaf, key).ok()?;
        leaf.get_mut(at).map(|(_, value)| value)
    }

    /// Adds an entry whose key is not there yet.
    #[inline]
    pub(in crate::state) fn insert(&mut self, key: K, value: V) {
        self.len += 1;
        let Some(leaf) = self.leaf_mut(&key) else {
            let leaves = vec![(key, Arc::new(vec![(key, value)]))];
            self.directories.push((key, Arc::new(Directory { leaves })));
            return;
        };
        let at = find(leaf, &key).unwrap_or_else(|at| at);
        if leaf.len() == leaf.capacity() {
            // Doubled, but never beyond what a leaf holds.
            leaf.reserve_exact(leaf.len().clamp(1, LEAF_MAX.saturating_sub(leaf.len()).max(1)));
        }
        leaf.insert(at, (key, value));
        if leaf.len() >= LEAF_MAX {
            self.split(&key);
        }
    }

    /// Makes two of the leaf of `key`, which is full, and of its directory, if that is then.
    #[cold]
    fn split(&mut self, key: &K) {
        let at = child(&self.directories, key);
        let is_last_directory = at + 1 == self.directories.len();
        let Some((_, directory)) = self.directories.get_mut(at) else { return };
        let directory = Arc::make_mut(directory);
        let place = child(&directory.leaves, key);
        let is_last = is_last_directory && place + 1 == directory.leaves.len();
        let Some((_, leaf)) = directory.leaves.get_mut(place) else { return };
        // Keys mostly rise: what is full stays full.
        let right = Arc::make_mut(leaf).split_off(if is_last { LEAF_MAX - 1 } else { LEAF_MAX / 2 });
        let Some(&(low, _)) = right.first() else { return };
        directory.leaves.insert(place + 1, (low, Arc::new(right)));
        if directory.leaves.len() >= DIRECTORY_MAX {
            let half = if is_last { DIRECTORY_MAX - 1 } else { DIRECTORY_MAX / 2 };
            let right = directory.leaves.split_off(half);
            let Some(&(low, _)) = right.first() else { return };
            self.directories.insert(at + 1, (low, Arc::new(Directory { leaves: right })));
        }
    }

    /// Takes the entry of `key` out.
    #[inline]
    pub(in crate::state) fn remove(&mut self, key: &K) -> Option<V> {
        let leaf = self.leaf_mut(key)?;
        let at = find(leaf, key).ok()?;
        let (_, value) = leaf.remove(at);
        let left = leaf.len();
        self.len -= 1;
        if left < LEAF_MAX / 4 {
            self.tidy(key);
        }
        Some(value)
    }

    /// Adds `count` entries with the keys that `key` gives for 0 and on, which rise and are not there yet.
    pub(in crate::state) fn insert_run(&mut self, count: u32, key: impl Fn(u32) -> K, value: &V) {
        let mut nth = 0;
        while nth < count {
            // The first one finds its leaf, and makes room in it; those behind it follow while there is room and nothing between.
            self.insert(key(nth), value.clone());
            let first = key(nth);
            nth += 1;
            let mut added = 0;
            if let Some(leaf) = self.leaf_mut(&first)
                && leaf.last().is_some_and(|(last, _)| *last == first)
            {
                let room = (LEAF_MAX - 1).saturating_sub(leaf.len()).min((count - nth) as usize);
                leaf.reserve_exact(room);
                leaf.extend((nth..).take(room).map(|nth| (key(nth), value.clone())));
                added = room;
            }
            self.len += added;
            nth += added as u32;
        }
    }

    /// Takes out the entries from `first` on and below `end`, and shows each to `taken`.
    pub(in crate::state) fn remove_run(&mut self, first: K, end: K, mut taken: impl FnMut(&K, &V)) {
        let mut from = Some(first);
        while let Some(first) = from {
            let Some(leaf) = self.leaf_mut(&first) else { return };
            let start = find(leaf, &first).unwrap_or_else(|at| at);
            let count = leaf.get(start..).unwrap_or(&[]).iter().take_while(|(key, _)| *key < end).count();
            leaf.drain(start..start + count).for_each(|(key, value)| taken(&key, &value));
            let is_done = start < leaf.len();
            let left = leaf.len();
            self.len -= count;
            if count > 0 && left < LEAF_MAX / 4 {
                self.tidy(&first);
            }
            from = if is_done { None } else { self.from(first).map(|(key, _)| *key).next().filter(|key| *key < end) };
        }
    }

    /// After a removal from the leaf of `key`: gives up what is empty, and joins what is nearly so.
    fn tidy(&mut self, key: &K) {
        let at = child(&self.directories, key);
        let is_only_directory = self.directories.len() == 1;
        let Some((_, directory)) = self.directories.get_mut(at) else { return };
        let directory = Arc::make_mut(directory);
        let place = child(&directory.leaves, key);
        if is_only_directory && directory.leaves.len() == 1 {
            return;
        }
        if directory.leaves.get(place).is_some_and(|(_, leaf)| leaf.is_empty()) {
            directory.leaves.remove(place);
        }
        directory.join(place);
        if directory.leaves.is_empty() {
            self.directories.remove(at);
        }
        join(&mut self.directories, at, DIRECTORY_MAX, |directory| directory.leaves.len(), Directory::append);
    }

    /// The entries from `key` on, in order.
    pub(in crate::state) fn from(&self, key: K) -> impl Iterator<Item = (&K, &V)> {
        let first = child(&self.directories, &key);
        let directories = self.directories.get(first..).unwrap_or(&[]).iter();
        directories
            .enumerate()
            .flat_map(move |(nth, (_, directory))| {
                let first = if nth == 0 { child(&directory.leaves, &key) } else { 0 };
                directory.leaves.get(first..).unwrap_or(&[])
            })
            .flat_map(move |(_, leaf)| {
                let first = find(leaf, &key).unwrap_or_else(|at| at);
                leaf.get(first..).unwrap_or(&[])
            })
            .map(|(key, value)| (key, value))
    }

    /// All entries in order.
    pub(in crate::state) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let leaves = self.directories.iter().flat_map(|(_, directory)| &directory.leaves);
        leaves.flat_map(|(_, leaf)| leaf.iter()).map(|(key, value)| (key, value))
    }

    /// What is wrong, if anything.
    pub(in crate::state) fn fault(&self) -> Option<&'static str> {
        let leaves = || self.directories.iter().flat_map(|(_, directory)| &directory.leaves);
        if !self.iter().map(|(key, _)| key).is_sorted_by(|a, b| a < b) {
            return Some("the entries are out of order");
        }
        if self.iter().count() != self.len {
            return Some("the entries are miscounted");
        }
        let misplaced = leaves().skip(1).any(|(low, leaf)| leaf.first().is_none_or(|(key, _)| key < low));
        if misplaced || leaves().any(|(_, leaf)| leaf.len() >= LEAF_MAX) {
            return Some("a leaf is empty, full, or begins below its key");
        }
        let mut pairs = self.directories.iter().flat_map(|(_, directory)| directory.leaves.windows(2));
        let is_sparse = pairs.any(|pair| pair[0].1.len() + pair[1].1.len() < LEAF_MAX / 4);
        is_sparse.then_some("two neighbours are nearly empty")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn leaves<V>(tree: &Tree<u64, V>) -> Vec<*const Leaf<u64, V>> {
        tree.directories
            .iter()
            .flat_map(|(_, directory)| &directory.leaves)
            .map(|(_, leaf)| Arc::as_ptr(leaf))
            .collect()
    }

    #[test]
    fn a_change_after_a_clone_copies_one_leaf() {
        let mut tree = Tree::default();
        (0..100_000u64).for_each(|key| tree.insert(key, key));
        assert_eq!(tree.fault(), None);
        assert!(tree.directories.len() < 20, "a clone copies {} pointers", tree.directories.len());
        assert!(leaves(&tree).len() < 100_000 / 40, "rising keys leave full leaves");
        let before = tree.clone();
        *tree.get_mut(&50_000).unwrap() = 0;
        let (old, new) = (leaves(&before), leaves(&tree));
        assert_eq!(old.iter().zip(&new).filter(|(old, new)| old != new).count(), 1);
        assert_eq!((before.get(&50_000), tree.get(&50_000)), (Some(&50_000), Some(&0)));
    }

    /// A few entries that stay behind do not keep the room of those that went.
    #[test]
    fn memory_follows_what_is_there() {
        for step in [7u64, 60, 1000, 99_999] {
            let mut tree = Tree::default();
            (0..100_000u64).for_each(|key| tree.insert(key, ()));
            for key in (0..100_000).filter(|key| key % step != 0) {
                tree.remove(&key).unwrap();
            }
            assert_eq!(tree.fault(), None);
            let capacity: usize = tree
                .directories
                .iter()
                .flat_map(|(_, directory)| &directory.leaves)
                .map(|(_, leaf)| leaf.capacity())
                .sum();
            assert!(capacity <= tree.len() * 10 + 2 * LEAF_MAX, "{capacity} places for {} entries", tree.len());
        }
    }

    #[test]
    fn an_empty_map_keeps_its_leaf() {
        let mut tree = Tree::default();
        tree.insert(1u64, ());
        let leaf = leaves(&tree);
        for key in 0..1000 {
            tree.remove(&(key + 1)).unwrap();
            assert_eq!(tree.len(), 0);
            tree.insert(key + 2, ());
            assert_eq!((leaves(&tree), tree.fault()), (leaf.clone(), None));
        }
    }

    properties! {
        /// Whatever goes, what stays beside it is joined.
        #[test]
        fn no_two_neighbors_stay_nearly_empty(
            runs in proptest::collection::vec((0u64..13, 0u64..48, 1u64..60), 1..30),
        ) {
            let mut tree = Tree::default();
            (0..600u64).for_each(|key| tree.insert(key, ()));
            for (leaf, start, count) in runs {
                let first = leaf * 47 + start % 12;
                tree.remove_run(first, first + count, |_, _| {});
                prop_assert_eq!(tree.fault(), None);
            }
        }

        #[test]
        fn it_behaves_like_a_map(
            steps in proptest::collection::vec((0u8..9, 0u64..3000, 1u64..300, any::<bool>()), 1..60),
        ) {
            let (mut tree, mut model) = (Tree::default(), BTreeMap::new());
            for (step, first, count, rising) in steps {
                let first = if rising { model.last_key_value().map_or(0, |(key, _)| key + 1) } else { first };
                let before = (tree.clone(), model.clone());
                if step == 0 && rising {
                    tree.insert_run(count as u32, |nth| first + u64::from(nth), &first);
                    model.extend((first..first + count).map(|key| (key, first)));
                }
                if step == 8 {
                    let mut taken = Vec::new();
                    tree.remove_run(first, first + count, |key, value| taken.push((*key, *value)));
                    let expected: Vec<_> = model.extract_if(first..first + count, |_, _| true).collect();
                    prop_assert_eq!(taken, expected);
                }
                for key in first..first + count {
                    if step < 5 && !model.contains_key(&key) {
                        tree.insert(key, first);
                        model.insert(key, first);
                    } else if step >= 5 {
                        prop_assert_eq!(tree.remove(&key), model.remove(&key));
                    }
                    prop_assert_eq!(tree.get_mut(&key), model.get_mut(&key));
                }
                prop_assert_eq!(tree.fault(), None);
                prop_assert!(tree.iter().eq(model.iter()));
                prop_assert!(tree.from(first).eq(model.range(first..)));
                prop_assert!(before.0.iter().eq(before.1.iter()), "a clone changed");
            }
        }
    }
}
