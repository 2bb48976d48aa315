//! How many failures there may be where few or none were seen.

/// The upper limit of a share, with 95 % confidence, after so many failures in so many trials.
///
/// One-sided, and exact for the Poisson distribution, which is the binomial one's limit for rare failures and never below it
/// here: the largest mean that lets at most `failures` happen in 5 % of all cases. Without failures that is −ln 0.05, so that
/// the limit is three in the number of trials ("rule of three").
pub(crate) fn upper_95(failures: u64, trials: u64) -> f64 {
    if failures >= trials {
        return 1.0;
    }
    let (mut low, mut high) = (failures as f64, 2.0 * failures as f64 + 10.0);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        match at_most(failures, middle) > 0.05 {
            true => low = middle,
            false => high = middle,
        }
    }
    (high / trials as f64).min(1.0)
}

/// How likely at most `most` events are where `mean` are expected. Each term is taken by its logarithm: the first one alone
/// would vanish for a large mean.
fn at_most(most: u64, mean: f64) -> f64 {
    let mut logarithm = -mean;
    let mut sum = logarithm.exp();
    for event in 1..=most {
        logarithm += (mean / event as f64).ln();
        sum += logarithm.exp();
    }
    sum
}

const HALVINGS: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, known: f64) {
        assert!((found / known - 1.0).abs() < 1e-3, "{found} instead of {known}");
    }

    #[test]
    fn no_failure_gives_the_rule_of_three() {
        close(upper_95(0, 1_000_000), 2.9957e-6);
    }

    /// From tables of the chi-squared distribution: half of its 95 % quantile with 2 (k + 1) degrees of freedom.
    #[test]
    fn some_failures_give_the_known_limits() {
        close(upper_95(1, 1_000), 4.7439e-3);
        close(upper_95(10, 1_000), 16.962e-3);
        close(upper_95(100, 10_000), 118.08e-4);
    }

    #[test]
    fn a_share_is_never_more_than_one() {
        assert_eq!(upper_95(0, 0), 1.0);
        assert_eq!(upper_95(0, 1), 1.0);
        assert_eq!(upper_95(5, 5), 1.0);
    }
}
