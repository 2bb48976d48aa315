//! Many values in few.

/// At least one value, of any unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) count: usize,
    pub(super) minimum: f64,
    pub(super) median: f64,
    /// 99 % are not above it.
    pub(super) high: f64,
    pub(super) maximum: f64,
}

impl Spread {
    /// Nothing if there is no value.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (first, last) = (values.first()?, values.last()?);
        let (count, middle) = (values.len(), values.len() / 2);
        let median = match count % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        let high = values[(count * 99).div_ceil(100) - 1];
        Some(Self { count, minimum: *first, median, high, maximum: *last })
    }

    /// The median, and from where to where the values go.
    pub(super) fn shown(self, digits: usize) -> String {
        let Self { minimum, median, maximum, .. } = self;
        if minimum.total_cmp(&maximum).is_eq() {
            return format!("{median:.digits$}");
        }
        format!("{median:.digits$} ({minimum:.digits$} to {maximum:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_ordered_first() {
        let spread = Spread::of((1..=200).rev().map(f64::from)).unwrap();
        assert_eq!((spread.minimum, spread.median, spread.high), (1.0, 100.5, 198.0));
        assert_eq!((spread.maximum, spread.count), (200.0, 200));
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([2.0]).unwrap().shown(1), "2.0");
        assert_eq!(Spread::of([2.0, 4.0]).unwrap().shown(0), "3 (2 to 4)");
    }
}
