//! How equally nodes share a load, as two numbers. For loads in proportion to budgets, each value
//! is a load divided by its budget.

/// Jain's fairness index (Jain, Chiu, Hawe 1984): the square of the sum, by the number of values
/// and the sum of their squares. It is 1 if all values are equal, and 1/n if one of n has
/// everything. `None` if there is no value above 0.
pub(super) fn jain(values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().sum();
    let squares: f64 = values.iter().map(|value| value * value).sum();
    (squares > 0.0).then(|| sum * sum / (values.len() as f64 * squares))
}

/// The largest value as a part of the sum: 1/n if all of n values are equal. `None` if there is no
/// value above 0.
pub(super) fn largest_share(values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().sum();
    (sum > 0.0).then(|| values.iter().copied().fold(0.0, f64::max) / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_1_and_a_single_one_has_its_part() {
        for (values, index, share) in [
            (&[][..], None, None),
            (&[0.0, 0.0], None, None),
            (&[5.0], Some(1.0), Some(1.0)),
            (&[3.0, 3.0, 3.0, 3.0], Some(1.0), Some(0.25)),
            (&[7.0, 0.0, 0.0, 0.0], Some(0.25), Some(1.0)),
            (&[1.0, 2.0, 3.0], Some(36.0 / 42.0), Some(0.5)),
        ] {
            assert_eq!((jain(values), largest_share(values)), (index, share), "{values:?}");
        }
    }
}
