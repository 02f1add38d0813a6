//! A list that grows at its end.

use std::fmt;
use std::sync::Arc;

/// How many elements are shared or copied together.
const PART: usize = 256;

/// Elements by their places, counted from 0. None is ever taken out.
#[derive(Clone)]
pub struct List<T> {
    /// Parts that are full.
    full: Vec<Arc<[T]>>,
    /// What comes after them: fewer than fill a part.
    rest: Vec<T>,
}

impl<T> List<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.full.len() * PART + self.rest.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.full.is_empty() && self.rest.is_empty()
    }

    /// Adds one at the end.
    pub fn push(&mut self, element: T) {
        self.rest.push(element);
        if self.rest.len() == PART {
            let part = std::mem::replace(&mut self.rest, Vec::with_capacity(PART));
            self.full.push(part.into());
        }
    }

    /// The element at this place.
    pub fn get(&self, place: usize) -> Option<&T> {
        self.part(place / PART).get(place % PART)
    }

    /// The element at this place, to be changed. What is shared with copies is first made our own.
    pub fn get_mut(&mut self, place: usize) -> Option<&mut T>
    where
        T: Clone,
    {
        if place / PART == self.full.len() {
            return self.rest.get_mut(place % PART);
        }
        self.full.get_mut(place / PART).and_then(|part| Arc::make_mut(part).get_mut(place % PART))
    }

    /// The last one.
    pub fn last(&self) -> Option<&T> {
        self.len().checked_sub(1).and_then(|place| self.get(place))
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.iter_from(0)
    }

    /// Those from this place on, in order.
    pub fn iter_from(&self, place: usize) -> impl DoubleEndedIterator<Item = &T> {
        let (first, offset) = (place / PART, place % PART);
        (first..=self.full.len()).flat_map(move |n| {
            let part = self.part(n);
            &part[if n == first { offset.min(part.len()) } else { 0 }..]
        })
    }

    /// How many stand before the first for which this does not hold, where it holds for none after that.
    pub fn partition_point(&self, mut holds: impl FnMut(&T) -> bool) -> usize {
        let part = self.full.partition_point(|part| part.last().is_some_and(&mut holds));
        part * PART + self.part(part).partition_point(holds)
    }

    fn part(&self, n: usize) -> &[T] {
        match self.full.get(n) {
            Some(part) => part,
            None if n == self.full.len() => &self.rest,
            None => &[],
        }
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { full: Vec::new(), rest: Vec::new() }
    }
}

impl<T> Extend<T> for List<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, elements: I) {
        elements.into_iter().for_each(|element| self.push(element));
    }
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut list = Self::default();
        list.extend(elements);
        list
    }
}

impl<T: fmt::Debug> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_found_in_lists_of_every_length() {
        for length in [0, 1, PART - 1, PART, PART + 1, 3 * PART + 7] {
            let mut list: List<usize> = (0..length).collect();
            assert_eq!((list.len(), list.is_empty()), (length, length == 0));
            assert_eq!(list.last().copied(), length.checked_sub(1));
            assert!((0..length).all(|place| list.get(place) == Some(&place)));
            for place in [length, length + PART] {
                assert!(list.get(place).is_none() && list.get_mut(place).is_none());
            }
            assert!(list.iter().copied().eq(0..length) && list.iter().rev().copied().eq((0..length).rev()));
            for place in [0, 1, PART - 1, PART, 2 * PART + 3, length, length + 2 * PART] {
                assert!(list.iter_from(place).copied().eq(place..length), "{length} from {place}");
                assert_eq!(list.partition_point(|element| *element < place), place.min(length));
            }
        }
    }

    #[test]
    fn a_copy_keeps_what_it_was_and_shares_the_rest() {
        let mut list: List<usize> = (0..3 * PART).collect();
        let copy = list.clone();
        *list.get_mut(PART).unwrap() = 0;
        list.push(1);
        assert!(copy.iter().copied().eq(0..3 * PART));
        assert_eq!((list.get(PART), list.len()), (Some(&0), 3 * PART + 1));
        let is_shared = |n: usize| Arc::ptr_eq(&list.full[n], &copy.full[n]);
        assert_eq!([0, 1, 2].map(is_shared), [true, false, true]);
    }
}
