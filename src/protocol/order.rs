//! Sorting in little code. Each use of a sort of the standard library makes a copy of its 4 to 6 KB
//! for that type and order. That pays where a loop sorts all indexers at each run, as the native's
//! do; everything else is sorted here.

/// Sorts a few: the steps grow with the square of their number. Equal ones stay in their order.
pub(crate) fn sort_few<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    for end in 1..items.len() {
        let mut at = end;
        while let Some([before, item]) = items.get(at.wrapping_sub(1)..=at)
            && key(before) > key(item)
        {
            items.swap(at - 1, at);
            at -= 1;
        }
    }
}

/// Sorts many. Equal ones are in any order.
pub(crate) fn sort<T>(items: &mut [T], is_less: impl Fn(&T, &T) -> bool) {
    for at in (0..items.len() / 2).rev() {
        sift_down(items, at, &is_less);
    }
    for end in (1..items.len()).rev() {
        items.swap(0, end);
        if let Some(heap) = items.get_mut(..end) {
            sift_down(heap, 0, &is_less);
        }
    }
}

/// Makes a heap, the greatest first, of one in which only the entry `at` may be out of place.
fn sift_down<T>(heap: &mut [T], mut at: usize, is_less: impl Fn(&T, &T) -> bool) {
    loop {
        let children = [2 * at + 1, 2 * at + 2];
        let greatest = children.into_iter().fold(at, |greatest, child| {
            match (heap.get(greatest), heap.get(child)) {
                (Some(most), Some(other)) if is_less(most, other) => child,
                _ => greatest,
            }
        });
        if greatest == at {
            return;
        }
        heap.swap(at, greatest);
        at = greatest;
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::protocol::Rng;

    #[test]
    fn sorts_as_the_standard_library_whatever_the_length_and_the_order() {
        let mut rng = Rng::new(7);
        for length in (0..40).chain([511, 512, 513]) {
            // Few values, so that many are equal; the second one tells them apart.
            let items: Vec<_> = (0..length).map(|nth| (rng.below(8), nth)).collect();
            let mut stable = items.clone();
            stable.sort_by_key(|(key, _)| *key);
            let mut few = items.clone();
            sort_few(&mut few, |(key, _)| *key);
            assert_eq!(few, stable);
            let mut whole = items;
            sort(&mut whole, |one, other| one < other);
            stable.sort_unstable();
            assert_eq!(whole, stable);
            // From the order that they have, and from its reverse.
            sort(&mut whole, |one, other| one < other);
            assert_eq!(whole, stable);
            sort(&mut whole, |one, other| one > other);
            stable.reverse();
            assert_eq!(whole, stable);
        }
    }
}
