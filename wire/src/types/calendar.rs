//! Days and microseconds to civil dates and back, total over all 64-bit values (no library call that may refuse
//! or panic): the proleptic Gregorian calendar, as in PostgreSQL. After Howard Hinnant's "chrono-compatible
//! low-level date algorithms".

/// Microseconds of a day.
pub const DAY_US: i64 = 86_400_000_000;
/// Days from 1970-01-01 to 2000-01-01, PostgreSQL's epoch on the wire.
pub const DAYS_1970_TO_2000: i32 = 10_957;
/// The same in microseconds.
pub const US_1970_TO_2000: i64 = DAYS_1970_TO_2000 as i64 * DAY_US;

/// A civil date; years count through 0 (1 BC) downwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// The astronomical year.
    pub year: i64,
    /// 1-12.
    pub month: u32,
    /// 1-31.
    pub day: u32,
}

/// The date of a day counted from 1970-01-01.
pub fn civil_of_days(days: i64) -> Civil {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_index + 2) / 5 + 1) as u32;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Civil { year, month, day }
}

/// The day counted from 1970-01-01 of a date; `None` when there is no such date.
pub fn days_of_civil(date: Civil) -> Option<i64> {
    if !(1..=12).contains(&date.month) || date.day < 1 || date.day > days_in_month(date.year, date.month) {
        return None;
    }
    if !(-300_000..=300_000).contains(&date.year) {
        return None;
    }
    let year = date.year - i64::from(date.month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_index = i64::from((date.month + 9) % 12);
    let day_of_year = (153 * month_index + 2) / 5 + i64::from(date.day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_days() {
        assert_eq!(
            civil_of_days(0),
            Civil {
                year: 1970,
                month: 1,
                day: 1
            }
        );
        assert_eq!(
            civil_of_days(i64::from(DAYS_1970_TO_2000)),
            Civil {
                year: 2000,
                month: 1,
                day: 1
            }
        );
        assert_eq!(
            days_of_civil(Civil {
                year: 2024,
                month: 2,
                day: 29
            }),
            Some(19_782)
        );
        assert_eq!(
            days_of_civil(Civil {
                year: 2023,
                month: 2,
                day: 29
            }),
            None
        );
    }

    proptest! {
        #[test]
        fn round_trip(days in -100_000_000i64..100_000_000) {
            prop_assert_eq!(days_of_civil(civil_of_days(days)), Some(days));
        }
    }
}
