//! Which slots of the socket map are free.

use agent_ebpf::{MAX_LISTENERS, steering::ListenerSet};

/// How many slots a service may have, if the others have so many: half of what those leave. So there is room for one more,
/// whatever the services do that are there.
pub(super) const fn share(of_others: u32) -> u32 {
    MAX_LISTENERS.saturating_sub(of_others) / 2
}

/// The lowest range of `count` free slots, or nothing if there is none.
pub(super) fn free_range<'a>(
    used: impl IntoIterator<Item = &'a ListenerSet>,
    count: u32,
) -> Option<u32> {
    let mut used: Vec<_> = used.into_iter().map(|set| (set.first, set.count)).collect();
    used.sort_unstable();
    let mut first = 0;
    for (start, length) in used {
        if first + count <= start {
            break;
        }
        first = first.max(start + length);
    }
    (first + count <= MAX_LISTENERS).then_some(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_is_used_before_the_end() {
        let used = [ListenerSet { first: 0, count: 2 }, ListenerSet { first: 5, count: 1 }];
        assert_eq!(free_range(&used, 3), Some(2));
        assert_eq!(free_range(&used, 4), Some(6));
        assert_eq!(free_range(&used, MAX_LISTENERS), None);
    }

    #[test]
    fn there_is_room_for_one_more_whatever_the_others_take() {
        let mut taken = 0;
        for _greedy in 0..10 {
            assert!(share(taken) > 0);
            taken += share(taken);
        }
        assert_eq!(share(MAX_LISTENERS), 0);
    }

    proptest! {
        #[test]
        fn ranges_never_overlap(counts in prop::collection::vec(1..20_u32, 1..60), freed in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
            let mut used: Vec<ListenerSet> = Vec::new();
            for count in counts {
                let first = free_range(&used, count).expect("1200 slots at most");
                prop_assert!(used.iter().all(|set| first + count <= set.first || set.first + set.count <= first));
                used.push(ListenerSet { first, count });
                if let Some(index) = freed.get(used.len()) {
                    used.swap_remove(index.index(used.len()));
                }
            }
        }
    }
}
