//! The rows: a function of their number, so that every way loads the same, and what arrived can be checked.

use std::fmt::Write as _;

/// 2024-01-01 in seconds since 1970.
const EPOCH_SECONDS: u64 = 1_704_067_200;
/// 2000-01-01 in seconds since 1970: where Postgres's binary time starts.
const POSTGRES_EPOCH_SECONDS: u64 = 946_684_800;
const SECONDS_PER_DAY: u64 = 86_400;
/// All rows are of one month, so that their date needs no calendar here.
const DAYS: u64 = 31;

/// One row.
pub struct Row {
    /// `id`, the key.
    pub id: i64,
    /// `kind`.
    pub kind: i32,
    /// `amount`.
    pub amount: i64,
    /// `name`: short.
    pub name: String,
    /// `note`: about thirty characters.
    pub note: String,
    /// `at`: seconds since 1970.
    pub seconds: u64,
    /// `at`: microseconds of the second.
    pub micros: u32,
    /// `price`: with a fraction of quarters, exact as text and as a sum.
    pub price: f64,
}

/// Scatters a number (the finalizer of SplitMix64).
fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Row {
    /// The row with a number.
    pub fn new(number: u64) -> Row {
        let chance = scatter(number);
        Row {
            id: number as i64,
            kind: (chance % 100) as i32,
            amount: (chance >> 8) as i64 % 1_000_000_000,
            name: format!("name-{}", chance % 10_000),
            note: format!("a note of some length {:08x}", chance as u32),
            seconds: EPOCH_SECONDS + number % (DAYS * SECONDS_PER_DAY),
            micros: (chance % 1_000_000) as u32,
            price: (chance % 400_000) as f64 / 4.0,
        }
    }

    /// `at` as text.
    pub fn at(&self) -> String {
        let seconds = self.seconds - EPOCH_SECONDS;
        let (day, second) = (seconds / SECONDS_PER_DAY + 1, seconds % SECONDS_PER_DAY);
        format!(
            "2024-01-{day:02} {:02}:{:02}:{:02}.{:06}+00",
            second / 3600,
            second / 60 % 60,
            second % 60,
            self.micros
        )
    }

    /// `at` in Postgres's binary form.
    pub fn at_binary(&self) -> i64 {
        ((self.seconds - POSTGRES_EPOCH_SECONDS) * 1_000_000) as i64 + i64::from(self.micros)
    }

    fn encode_delimited(&self, delimiter: char, out: &mut Vec<u8>) {
        let mut line = String::with_capacity(128);
        let d = delimiter;
        let _ = write!(
            line,
            "{}{d}{}{d}{}{d}{}{d}{}{d}",
            self.id, self.kind, self.amount, self.name, self.note
        );
        line.push_str(&self.at());
        let _ = writeln!(line, "{d}{}", self.price);
        out.extend_from_slice(line.as_bytes());
    }

    /// As a line of COPY's text format.
    pub fn encode_text(&self, out: &mut Vec<u8>) {
        self.encode_delimited('\t', out);
    }

    /// As a line of CSV.
    pub fn encode_csv(&self, out: &mut Vec<u8>) {
        self.encode_delimited(',', out);
    }

    /// As a tuple of COPY's binary format.
    pub fn encode_binary(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&7i16.to_be_bytes());
        let mut field = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        field(&self.id.to_be_bytes());
        field(&self.kind.to_be_bytes());
        field(&self.amount.to_be_bytes());
        field(self.name.as_bytes());
        field(self.note.as_bytes());
        field(&self.at_binary().to_be_bytes());
        field(&self.price.to_be_bytes());
    }
}

/// What the table's sums should be, as text: rows, id, kind, amount, lengths of name and note, seconds, quarters of
/// price.
pub fn sums(rows: u64) -> Vec<String> {
    let mut sums = [0i64; 7];
    for number in 0..rows {
        let row = Row::new(number);
        let values = [
            row.id,
            i64::from(row.kind),
            row.amount,
            row.name.len() as i64,
            row.note.len() as i64,
            row.seconds as i64,
            (row.price * 4.0) as i64,
        ];
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    let mut texts = vec![rows.to_string()];
    texts.extend(sums.iter().map(i64::to_string));
    texts
}
