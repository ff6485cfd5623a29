//! Sorted maps of whole lists: made in one go, and walked side by side.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;

/// A map of entries with different keys. One that is filled one by one leaves half of its room empty, and sorting that keeps
/// the order of equals takes room for a second list.
pub(crate) fn sorted_map<K: Ord, V>(mut entries: Vec<(K, V)>) -> BTreeMap<K, V> {
    entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    entries.into_iter().collect()
}

/// Look-ups by keys that only ascend: each costs a step or none, where a search costs one for each level of the map.
pub(crate) struct Ascending<'a, K, V> {
    rest: Peekable<btree_map::Iter<'a, K, V>>,
}

impl<'a, K: Ord, V> Ascending<'a, K, V> {
    pub(crate) fn new(map: &'a BTreeMap<K, V>) -> Self {
        Self {
            rest: map.iter().peekable(),
        }
    }

    /// The value of a key that isn't less than the one before.
    pub(crate) fn get(&mut self, key: &K) -> Option<&'a V> {
        while self.rest.next_if(|(other, _)| *other < key).is_some() {}
        let (other, value) = self.rest.peek()?;
        (*other == key).then_some(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_a_search_finds() {
        for step in 1..5 {
            let map: BTreeMap<u32, u32> = (0..40).step_by(step).map(|key| (key, key + 1)).collect();
            for stride in 1..5 {
                let mut ascending = Ascending::new(&map);
                for key in (0..50).step_by(stride) {
                    assert_eq!(ascending.get(&key), map.get(&key), "{step} {stride} {key}");
                    assert_eq!(ascending.get(&key), map.get(&key), "{key} again");
                }
            }
        }
    }
}
