//! Values by a number, where only some of the numbers below the highest are in use.
//!
//! Memory follows what is there, not the highest number. Never here: what the numbers name.

use std::sync::Arc;

/// Numbers of one page.
const PAGE: u64 = 128;

/// A map from numbers to values. A clone shares all pages.
#[derive(Clone, Debug)]
pub(crate) struct Sparse<T> {
    /// In the order of their numbers. None is empty.
    pages: Vec<(u64, Arc<Page<T>>)>,
    len: u64,
}

#[derive(Clone, Debug)]
struct Page<T> {
    /// As long as the highest number in use asks for.
    places: Vec<Option<T>>,
    len: u32,
}

impl<T> Default for Sparse<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), len: 0 }
    }
}

#[inline]
fn place(number: u64) -> (u64, usize) {
    (number / PAGE, (number % PAGE) as usize)
}

impl<T: Clone> Sparse<T> {
    /// How many numbers are in use.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// How many pointers a clone copies.
    #[cfg(test)]
    pub(crate) fn pages(&self) -> usize {
        self.pages.len()
    }

    #[inline]
    fn find(&self, page: u64) -> Result<usize, usize> {
        match self.pages.first() {
            // Most are small.
            Some((first, _)) if *first == page => Ok(0),
            _ => self.pages.binary_search_by_key(&page, |(page, _)| *page),
        }
    }

    #[inline]
    pub(crate) fn get(&self, number: u64) -> Option<&T> {
        let (page, at) = place(number);
        let (_, page) = self.pages.get(self.find(page).ok()?)?;
        page.places.get(at)?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let (page, at) = place(number);
        let found = self.find(page).ok()?;
        Arc::make_mut(&mut self.pages.get_mut(found)?.1).places.get_mut(at)?.as_mut()
    }

    /// Puts a value in the place of what was there.
    pub(crate) fn insert(&mut self, number: u64, value: T) {
        let (page, at) = place(number);
        let found = self.find(page).unwrap_or_else(|found| {
            self.pages.insert(found, (page, Arc::new(Page { places: Vec::new(), len: 0 })));
            found
        });
        let page = Arc::make_mut(&mut self.pages[found].1);
        if page.places.len() <= at {
            page.places.reserve_exact(at + 1 - page.places.len());
            page.places.resize_with(at + 1, || None);
        }
        if page.places[at].replace(value).is_none() {
            page.len += 1;
            self.len += 1;
        }
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<T> {
        let (page, at) = place(number);
        let found = self.find(page).ok()?;
        let page = Arc::make_mut(&mut self.pages.get_mut(found)?.1);
        let removed = page.places.get_mut(at)?.take()?;
        page.len -= 1;
        self.len -= 1;
        if page.len == 0 {
            self.pages.remove(found);
        }
        Some(removed)
    }

    /// In the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.pages.iter().flat_map(|(page, values)| {
            let numbers = page * PAGE..;
            numbers.zip(&values.places).filter_map(|(number, value)| Some((number, value.as_ref()?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn memory_follows_what_is_there() {
        let mut sparse = Sparse::default();
        for number in 0..100_000u64 {
            sparse.insert(number * 1000, number);
            if number >= 10 {
                assert_eq!(sparse.remove((number - 10) * 1000), Some(number - 10));
            }
            assert!(sparse.pages.len() <= 11);
        }
        assert_eq!(sparse.len(), 10);
    }

    #[test]
    fn a_clone_does_not_see_later_changes() {
        let mut sparse = Sparse::default();
        (0..1000).for_each(|number| sparse.insert(number, number));
        let before = sparse.clone();
        *sparse.get_mut(7).unwrap() = 0;
        sparse.remove(8);
        sparse.insert(1000, 1);
        assert!(before.iter().map(|(number, value)| (number, *value)).eq((0..1000).map(|n| (n, n))));
        let pairs = sparse.pages.iter().zip(&before.pages);
        let shared = pairs.filter(|((_, now), (_, then))| Arc::ptr_eq(now, then)).count();
        assert_eq!(shared, 6, "of eight pages two were changed");
    }

    properties! {
        #[test]
        fn it_behaves_like_a_map(steps in proptest::collection::vec((0u8..3, 0u64..2000, 0u32..9), 0..300)) {
            let (mut sparse, mut model) = (Sparse::default(), BTreeMap::new());
            for (step, number, value) in steps {
                match step {
                    0 => assert_eq!(sparse.remove(number), model.remove(&number)),
                    1 => assert_eq!(sparse.get_mut(number), model.get_mut(&number)),
                    _ => {
                        sparse.insert(number, value);
                        model.insert(number, value);
                    }
                }
                assert_eq!(sparse.get(number), model.get(&number));
                assert_eq!(sparse.len(), model.len() as u64);
            }
            assert!(sparse.iter().eq(model.iter().map(|(number, value)| (*number, value))));
        }
    }
}
