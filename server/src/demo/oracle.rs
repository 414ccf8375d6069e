//! The same answers, computed again from all rows with nothing but maps.
//!
//! The rows are read from the region that owns them, region by region; the views are read in every region. The
//! recomputation shares no code with the server: not its planner, not its operators, not its types.

use std::collections::BTreeMap;

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::DemoError;

/// A view of the demo.
pub struct ViewUnderTest {
    /// Its name.
    pub name: &'static str,
    /// Its query.
    pub sql: &'static str,
}

/// The views over the Nexmark events.
pub const VIEWS: [ViewUnderTest; 3] = [
    ViewUnderTest {
        name: "bids_by_channel",
        sql: "SELECT channel, count(*) AS bids, sum(price) AS total, max(price) AS top \
              FROM bid GROUP BY channel",
    },
    ViewUnderTest {
        name: "bids_by_auction",
        sql: "SELECT auction, count(*) AS bids, min(price) AS low, max(price) AS top \
              FROM bid GROUP BY auction",
    },
    ViewUnderTest {
        name: "auctions_by_category",
        sql: "SELECT c.name, count(*) AS auctions, sum(a.reserve) AS reserve \
              FROM auction a JOIN category c ON a.category = c.id GROUP BY c.name",
    },
];

/// The rows of a view: the first column, then numbers.
pub type Answer = BTreeMap<String, Vec<i128>>;

/// All rows that the views are made of.
#[derive(Default)]
pub struct Rows {
    bids: Vec<(String, String, i128)>,
    auctions: Vec<(String, i128)>,
    categories: BTreeMap<String, String>,
}

impl Rows {
    /// Adds what one region owns.
    pub async fn read_region(&mut self, client: &Client) -> Result<(), DemoError> {
        let own = "WHERE tributary_region = gateway_region()";
        for row in query(client, &format!("SELECT channel, auction, price FROM bid {own}")).await? {
            self.bids.push((text(&row, 0)?, text(&row, 1)?, number(&row, 2)?));
        }
        for row in query(client, &format!("SELECT category, reserve FROM auction {own}")).await? {
            self.auctions.push((text(&row, 0)?, number(&row, 1)?));
        }
        Ok(())
    }

    /// Reads the GLOBAL table, which is the same everywhere.
    pub async fn read_global(&mut self, client: &Client) -> Result<(), DemoError> {
        for row in query(client, "SELECT id, name FROM category").await? {
            self.categories.insert(text(&row, 0)?, text(&row, 1)?);
        }
        Ok(())
    }

    /// How many events of the views' tables there are.
    pub fn len(&self) -> usize {
        self.bids.len() + self.auctions.len()
    }

    /// What the views must hold, in the order of [`VIEWS`].
    pub fn expected(&self) -> [Answer; 3] {
        let mut by_channel = Answer::new();
        let mut by_auction = Answer::new();
        for (channel, auction, price) in &self.bids {
            let row = by_channel
                .entry(channel.clone())
                .or_insert_with(|| vec![0, 0, *price]);
            (row[0], row[1], row[2]) = (row[0] + 1, row[1] + price, row[2].max(*price));
            let row = by_auction
                .entry(auction.clone())
                .or_insert_with(|| vec![0, *price, *price]);
            (row[0], row[1], row[2]) = (row[0] + 1, row[1].min(*price), row[2].max(*price));
        }
        let mut by_category = Answer::new();
        for (category, reserve) in &self.auctions {
            let Some(name) = self.categories.get(category) else {
                continue;
            };
            let row = by_category.entry(name.clone()).or_insert_with(|| vec![0, 0]);
            (row[0], row[1]) = (row[0] + 1, row[1] + reserve);
        }
        [by_channel, by_auction, by_category]
    }
}

/// A view as a region shows it.
pub async fn read_view(client: &Client, name: &str) -> Result<Answer, DemoError> {
    let mut answer = Answer::new();
    for row in query(client, &format!("SELECT * FROM {name}")).await? {
        let numbers = (1..row.len())
            .map(|column| number(&row, column))
            .collect::<Result<_, _>>()?;
        if answer.insert(text(&row, 0)?, numbers).is_some() {
            return Err(DemoError::Answer(format!(
                "view {name} shows key {} twice",
                text(&row, 0)?
            )));
        }
    }
    Ok(answer)
}

/// The rows of a statement, as text.
pub async fn query(client: &Client, sql: &str) -> Result<Vec<SimpleQueryRow>, DemoError> {
    let messages = client.simple_query(sql).await?;
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

/// A text column that is not null.
pub fn text(row: &SimpleQueryRow, column: usize) -> Result<String, DemoError> {
    let value = row
        .get(column)
        .ok_or_else(|| DemoError::Answer(format!("null in column {column}")))?;
    Ok(value.to_owned())
}

/// A whole number that is not null.
pub fn number(row: &SimpleQueryRow, column: usize) -> Result<i128, DemoError> {
    let value = text(row, column)?;
    value
        .parse()
        .map_err(|_| DemoError::Answer(format!("\"{value}\" is not a whole number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recomputation_groups_joins_and_aggregates() {
        let rows = Rows {
            bids: vec![
                ("web".into(), "7".into(), 5),
                ("web".into(), "8".into(), 9),
                ("app".into(), "7".into(), 2),
            ],
            auctions: vec![("10".into(), 100), ("10".into(), 1), ("99".into(), 5)],
            categories: BTreeMap::from([("10".to_owned(), "art".to_owned())]),
        };
        let [by_channel, by_auction, by_category] = rows.expected();
        assert_eq!(by_channel["web"], [2, 14, 9]);
        assert_eq!(by_channel["app"], [1, 2, 2]);
        assert_eq!(by_auction["7"], [2, 2, 5]);
        assert_eq!(by_category, BTreeMap::from([("art".to_owned(), vec![2, 101])]));
    }
}
