//! A sum of floats that is exact, so that it depends on *which* values were added and not on their order.
//!
//! The sum is one big fixed-point integer over the whole range of an `f64`: two's complement, in units of the
//! smallest subnormal (2^-1074), with room for 2^63 values of the largest magnitude. Infinities and NaNs are
//! counted beside it. Adding a value and retracting it again leaves the very same state, and partial sums of
//! different regions merge in any order to the same bytes. Rounding happens once, when a result is asked for,
//! and is correct (nearest, ties to even).
//!
//! Invariant: equal multisets of values have equal [`FloatSum::encode`]d bytes (the encoding is trimmed at both
//! ends, so it is short for values of similar size). Negative zero counts as zero.

use super::Message;

/// 2^1024 / 2^-1074 takes 2098 bits; 63 more for the weights, one for the sign: 2162, rounded up to words.
const WORDS: usize = 35;
const BYTES: usize = WORDS * 8;
/// A result is computed with this many words below the unit, so that a quotient keeps all bits it needs.
const EXTRA_WORDS: usize = 2;
/// The exponent of the unit of the integer.
const UNIT_EXPONENT: i32 = -1074;

/// The exact sum of a multiset of floats and the number of its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FloatSum {
    words: [u64; WORDS],
    nans: i64,
    positive_infinities: i64,
    negative_infinities: i64,
    /// Elements, those that are not finite included.
    count: i64,
}

/// The target of a rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    Single,
    Double,
}

impl Default for FloatSum {
    fn default() -> Self {
        Self {
            words: [0; WORDS],
            nans: 0,
            positive_infinities: 0,
            negative_infinities: 0,
            count: 0,
        }
    }
}

impl FloatSum {
    /// Adds `value` `weight` times; a negative weight retracts.
    pub(crate) fn add(&mut self, value: f64, weight: i64) {
        self.count = self.count.wrapping_add(weight);
        if value.is_nan() {
            self.nans = self.nans.wrapping_add(weight);
        } else if value == f64::INFINITY {
            self.positive_infinities = self.positive_infinities.wrapping_add(weight);
        } else if value == f64::NEG_INFINITY {
            self.negative_infinities = self.negative_infinities.wrapping_add(weight);
        } else {
            let bits = value.to_bits();
            let exponent = ((bits >> 52) & 0x7ff) as usize;
            let fraction = bits & ((1 << 52) - 1);
            // Subnormals share the exponent of the smallest normals, without the implicit bit.
            let (mantissa, shift) = if exponent == 0 {
                (fraction, 0)
            } else {
                (fraction | 1 << 52, exponent - 1)
            };
            let product = u128::from(mantissa) * u128::from(weight.unsigned_abs());
            self.add_shifted(product, shift, value.is_sign_negative() != (weight < 0));
        }
    }

    /// Adds all elements of another sum.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.count = self.count.wrapping_add(other.count);
        self.nans = self.nans.wrapping_add(other.nans);
        self.positive_infinities = self.positive_infinities.wrapping_add(other.positive_infinities);
        self.negative_infinities = self.negative_infinities.wrapping_add(other.negative_infinities);
        let mut carry = false;
        for (word, add) in self.words.iter_mut().zip(other.words) {
            (*word, carry) = add_with_carry(*word, add, carry);
        }
    }

    /// The sum, rounded once; `None` without elements.
    ///
    /// # Errors
    /// When the sum is finite and the result is not.
    pub(crate) fn sum(&self, precision: Precision) -> Result<Option<f64>, Message> {
        self.rounded(1, precision)
    }

    /// The mean, rounded once; `None` without elements.
    ///
    /// # Errors
    /// Never for honest state: a mean lies between its elements.
    pub(crate) fn average(&self) -> Result<Option<f64>, Message> {
        self.rounded(self.count.unsigned_abs().max(1), Precision::Double)
    }

    /// Bytes that are equal exactly when the sums are.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(24);
        for number in [
            self.count,
            self.nans,
            self.positive_infinities,
            self.negative_infinities,
        ] {
            put_varint(&mut encoded, zigzag(number));
        }
        let mut bytes = [0u8; BYTES];
        bytes
            .chunks_exact_mut(8)
            .zip(self.words)
            .for_each(|(c, word)| c.copy_from_slice(&word.to_le_bytes()));
        let Some(low) = bytes.iter().position(|byte| *byte != 0) else {
            return encoded;
        };
        let sign = if bytes[BYTES - 1] & 0x80 != 0 { 0xff } else { 0x00 };
        let mut high = BYTES;
        while high > low + 1 && bytes[high - 1] == sign && (bytes[high - 2] ^ sign) & 0x80 == 0 {
            high -= 1;
        }
        put_varint(&mut encoded, low as u64);
        encoded.extend_from_slice(&bytes[low..high]);
        encoded
    }

    /// The sum that was encoded; `None` when the bytes are not an encoding. They may be a peer's.
    pub(crate) fn decode(mut encoded: &[u8]) -> Option<Self> {
        let mut number = || take_varint(&mut encoded).map(unzigzag);
        let (count, nans) = (number()?, number()?);
        let (positive_infinities, negative_infinities) = (number()?, number()?);
        let mut bytes = [0u8; BYTES];
        if !encoded.is_empty() {
            let low = usize::try_from(take_varint(&mut encoded)?).ok()?;
            let high = low
                .checked_add(encoded.len())
                .filter(|high| *high <= BYTES && *high > low)?;
            bytes[low..high].copy_from_slice(encoded);
            if bytes[high - 1] & 0x80 != 0 {
                bytes[high..].fill(0xff);
            }
        }
        let mut words = [0; WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight bytes"));
        }
        Some(Self {
            words,
            nans,
            positive_infinities,
            negative_infinities,
            count,
        })
    }

    /// Adds or subtracts `product * 2^shift` units.
    fn add_shifted(&mut self, product: u128, shift: usize, negative: bool) {
        let (first, bits) = (shift / 64, shift % 64);
        let low = product << bits;
        let high = if bits == 0 {
            0
        } else {
            (product >> (128 - bits)) as u64
        };
        let mut carry = false;
        for (i, part) in [low as u64, (low >> 64) as u64, high].into_iter().enumerate() {
            let word = &mut self.words[first + i];
            (*word, carry) = step(*word, part, carry, negative);
        }
        for word in &mut self.words[first + 3..] {
            if !carry {
                break;
            }
            (*word, carry) = step(*word, 0, carry, negative);
        }
    }

    fn rounded(&self, divisor: u64, precision: Precision) -> Result<Option<f64>, Message> {
        if self.count == 0 {
            return Ok(None);
        }
        let (up, down) = (self.positive_infinities != 0, self.negative_infinities != 0);
        if self.nans != 0 || (up && down) {
            return Ok(Some(f64::NAN));
        }
        if up || down {
            return Ok(Some(if up { f64::INFINITY } else { f64::NEG_INFINITY }));
        }
        let (magnitude, negative) = self.magnitude();
        let (quotient, inexact) = divide(&magnitude, divisor);
        let rounded = round(&quotient, inexact, precision);
        if rounded.is_infinite() {
            return Err("value out of range: overflow".to_string());
        }
        Ok(Some(if negative { -rounded } else { rounded }))
    }

    /// The absolute value with [`EXTRA_WORDS`] zero words below, and whether the sum is negative.
    fn magnitude(&self) -> ([u64; WORDS + EXTRA_WORDS], bool) {
        let negative = self.words[WORDS - 1] >> 63 != 0;
        let mut magnitude = [0; WORDS + EXTRA_WORDS];
        let mut carry = negative;
        for (word, own) in magnitude[EXTRA_WORDS..].iter_mut().zip(self.words) {
            (*word, carry) = add_with_carry(if negative { !own } else { own }, 0, carry);
        }
        (magnitude, negative)
    }
}

fn step(word: u64, part: u64, carry: bool, negative: bool) -> (u64, bool) {
    if !negative {
        return add_with_carry(word, part, carry);
    }
    let (difference, first) = word.overflowing_sub(part);
    let (difference, second) = difference.overflowing_sub(u64::from(carry));
    (difference, first || second)
}

fn add_with_carry(a: u64, b: u64, carry: bool) -> (u64, bool) {
    let (sum, first) = a.overflowing_add(b);
    let (sum, second) = sum.overflowing_add(u64::from(carry));
    (sum, first || second)
}

/// The quotient, and whether there is a remainder.
fn divide<const N: usize>(dividend: &[u64; N], divisor: u64) -> ([u64; N], bool) {
    let mut quotient = [0; N];
    let mut rest = 0u64;
    for i in (0..N).rev() {
        let part = u128::from(rest) << 64 | u128::from(dividend[i]);
        quotient[i] = (part / u128::from(divisor)) as u64;
        rest = (part % u128::from(divisor)) as u64;
    }
    (quotient, rest != 0)
}

/// The nearest float to `magnitude` units of 2^(UNIT_EXPONENT - 64 * EXTRA_WORDS), ties to even.
fn round<const N: usize>(magnitude: &[u64; N], inexact: bool, precision: Precision) -> f64 {
    let Some(top) = (0..N).rev().find(|i| magnitude[*i] != 0) else {
        return 0.0;
    };
    let unit = UNIT_EXPONENT - 64 * EXTRA_WORDS as i32;
    let (digits, exponent_min) = match precision {
        Precision::Double => (53, -1074),
        Precision::Single => (24, -149),
    };
    let highest = 64 * top as i32 + 63 - magnitude[top].leading_zeros() as i32;
    let lowest = (highest - (digits - 1)).max(exponent_min - unit);
    let bit = |position: i32| magnitude[position as usize / 64] >> (position as usize % 64) & 1;
    let mut mantissa = 0u64;
    for position in (lowest..=highest).rev() {
        mantissa = mantissa << 1 | bit(position);
    }
    let below = (lowest - 1) as usize;
    let half = bit(lowest - 1) == 1;
    let sticky = inexact
        || magnitude[..below / 64].iter().any(|word| *word != 0)
        || magnitude[below / 64] & ((1u64 << (below % 64)) - 1) != 0;
    if half && (sticky || mantissa & 1 == 1) {
        mantissa += 1;
    }
    let rounded = mantissa as f64 * power_of_two(lowest + unit);
    if precision == Precision::Single && rounded > f64::from(f32::MAX) {
        f64::INFINITY
    } else {
        rounded
    }
}

/// 2^exponent for exponents of at least -1074; infinity when it is too large.
fn power_of_two(exponent: i32) -> f64 {
    match exponent {
        1024.. => f64::INFINITY,
        -1022.. => f64::from_bits(((exponent + 1023) as u64) << 52),
        _ => f64::from_bits(1 << (exponent + 1074)),
    }
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum_of(values: &[f64]) -> FloatSum {
        let mut sum = FloatSum::default();
        values.iter().for_each(|value| sum.add(*value, 1));
        sum
    }

    fn result(values: &[f64]) -> f64 {
        sum_of(values)
            .sum(Precision::Double)
            .expect("in range")
            .expect("there are values")
    }

    #[test]
    fn cancellation_loses_nothing() {
        assert_eq!(result(&[1e308, 1.0, -1e308]), 1.0);
        assert_eq!(result(&[1e16, 1.0, 1.0]), 1e16 + 2.0);
        assert_eq!(result(&[f64::MIN_POSITIVE, 5e-324, -f64::MIN_POSITIVE]), 5e-324);
        assert_eq!(result(&[0.1; 10]), 1.0);
        // 0.1 + 0.2 + 0.4 of floats is a little more than 0.7, which only an exact sum still knows.
        assert_eq!(sum_of(&[0.1, 0.2, 0.4]).average(), Ok(Some(0.23333333333333334)));
    }

    #[test]
    fn special_values() {
        assert!(result(&[1.0, f64::NAN]).is_nan());
        assert!(result(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert_eq!(result(&[f64::NEG_INFINITY, 1.0]), f64::NEG_INFINITY);
        assert!(sum_of(&[f64::MAX, f64::MAX]).sum(Precision::Double).is_err());
        assert_eq!(sum_of(&[f64::MAX, f64::MAX]).average(), Ok(Some(f64::MAX)));
        assert_eq!(sum_of(&[]).sum(Precision::Double), Ok(None));
        assert!(result(&[-0.0]).is_sign_positive());
        assert!(
            sum_of(&[f64::from(f32::MAX), f64::from(f32::MAX)])
                .sum(Precision::Single)
                .is_err()
        );
    }

    #[test]
    fn halves_round_to_even() {
        let ulp = f64::EPSILON;
        assert_eq!(result(&[1.0, ulp / 2.0]), 1.0);
        assert_eq!(result(&[1.0 + ulp, ulp / 2.0]), 1.0 + 2.0 * ulp);
        assert_eq!(result(&[1.0, ulp / 2.0, 5e-324]), 1.0 + ulp);
        let single = sum_of(&[1.0, f64::from(f32::EPSILON) / 2.0, 5e-324]).sum(Precision::Single);
        assert_eq!(single, Ok(Some(1.0 + f64::from(f32::EPSILON))));
    }

    #[test]
    fn bytes_that_are_no_encoding_are_refused() {
        assert_eq!(FloatSum::decode(&[]), None);
        assert_eq!(FloatSum::decode(&[0x80; 12]), None);
        let mut far = vec![2, 0, 0, 0];
        put_varint(&mut far, 279);
        far.extend_from_slice(&[1, 2]);
        assert_eq!(FloatSum::decode(&far), None);
    }

    fn any_float() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            -1e3..1e3f64,
            Just(f64::MAX),
            Just(5e-324),
            Just(-0.0),
        ]
    }

    proptest! {
        #[test]
        fn order_and_grouping_do_not_matter(
            values in prop::collection::vec(any_float(), 0..20),
            order in prop::collection::vec(any::<u32>(), 20),
            cut in 0usize..20,
        ) {
            let whole = sum_of(&values);
            let mut permuted: Vec<_> = values.iter().copied().zip(order).collect();
            permuted.sort_by_key(|(_, place)| *place);
            let permuted: Vec<f64> = permuted.into_iter().map(|(value, _)| value).collect();
            let (left, right) = permuted.split_at(cut.min(permuted.len()));
            let mut merged = sum_of(left);
            merged.merge(&sum_of(right));
            prop_assert_eq!(whole.encode(), merged.encode());
            prop_assert_eq!(FloatSum::decode(&whole.encode()), Some(whole));
        }

        #[test]
        fn retraction_is_exact(
            kept in prop::collection::vec(any_float(), 0..8),
            gone in prop::collection::vec((any_float(), 1i64..1000), 0..8),
        ) {
            let mut sum = FloatSum::default();
            gone.iter().for_each(|(value, weight)| sum.add(*value, *weight));
            kept.iter().for_each(|value| sum.add(*value, 1));
            gone.iter().for_each(|(value, weight)| (0..*weight).for_each(|_| sum.add(*value, -1)));
            prop_assert_eq!(sum, sum_of(&kept));
        }

        /// Values are multiples of 2^-20 below 2^40, so that an i128 is exact arithmetic.
        #[test]
        fn results_are_the_nearest_floats(
            values in prop::collection::vec((-(1i64 << 53)..(1i64 << 53), -20i32..8), 1..20),
        ) {
            let scaled = |(mantissa, exponent): &(i64, i32)| i128::from(*mantissa) << (exponent + 20);
            let exact: i128 = values.iter().map(scaled).sum();
            let floats: Vec<f64> = values.iter().map(|(m, e)| *m as f64 * 2f64.powi(*e)).collect();
            // The conversion of an i128 rounds to nearest even; scaling by a power of two is exact.
            prop_assert_eq!(result(&floats), exact as f64 * 2f64.powi(-20));
            let single = sum_of(&floats).sum(Precision::Single);
            prop_assert_eq!(single, Ok(Some(f64::from(exact as f32 * 2f32.powi(-20)))));
            let count = floats.len() as i128;
            let mean = sum_of(&floats).average().expect("in range").expect("there are values");
            // |mean - exact/count| is at most that of both neighbours, in units of 2^-20 / 2^40.
            let distance = |candidate: f64| ((candidate * 2f64.powi(60)) as i128 * count - (exact << 40)).abs();
            if mean.abs() > 2f64.powi(-7) && mean.abs() < 2f64.powi(50) && exact.abs() < 1 << 80 {
                prop_assert!(distance(mean) <= distance(mean.next_up()));
                prop_assert!(distance(mean) <= distance(mean.next_down()));
            }
        }
    }
}
