//! The circuits, one file each. An input is indexed by the key that the first stateful operator wants, with the columns
//! that the circuit reads. Events are only ever added, so an aggregate keeps its value and no rows (`chain_aggregate`)
//! wherever its own input is the events.

mod q0;
mod q17;
mod q18;
mod q19;
mod q2;
mod q3;
mod q4;
mod q5;
mod q7;
mod q8;
mod q9;

use dbsp::typed_batch::IndexedZSetReader;
use dbsp::utils::Tup2;
use dbsp::{DBData, IndexedZSetHandle, OrdIndexedZSet, RootCircuit, Stream};

use crate::events::Events;
use crate::view::View;

/// Gives a decoded batch to the circuit.
pub type Push = Box<dyn FnOnce() + Send>;
/// Makes rows of a decoded batch, on the feeder's thread.
pub type Prepare = Box<dyn Fn(&Events) -> Push + Send>;
/// Takes the changes of the last transaction out of the circuit, into the view if there is one.
pub type Take = Box<dyn Fn(Option<&mut View>) + Send>;
/// A stream of changes of keyed rows.
pub type Keyed<K, V> = Stream<RootCircuit, OrdIndexedZSet<K, V>>;

/// The two ends of a circuit.
pub struct Query {
    pub prepare: Prepare,
    pub take: Take,
}

/// All circuits by their query's name.
pub const ALL: [(&str, fn(&mut RootCircuit) -> Query); 11] = [
    ("q0", q0::build),
    ("q2", q2::build),
    ("q3", q3::build),
    ("q4", q4::build),
    ("q5", q5::build),
    ("q7", q7::build),
    ("q8", q8::build),
    ("q9", q9::build),
    ("q17", q17::build),
    ("q18", q18::build),
    ("q19", q19::build),
];

/// An input whose rows are made by a function of the decoded events.
fn input<K: DBData, V: DBData>(
    circuit: &RootCircuit,
    rows: fn(&Events) -> Vec<(K, V)>,
) -> (Keyed<K, V>, Prepare) {
    let (stream, handle): (_, IndexedZSetHandle<K, V>) = circuit.add_input_indexed_zset();
    let prepare: Prepare = Box::new(move |events| {
        let mut added: Vec<Tup2<K, Tup2<V, i64>>> = rows(events)
            .into_iter()
            .map(|(key, value)| Tup2(key, Tup2(value, 1)))
            .collect();
        let handle = handle.clone();
        Box::new(move || handle.append(&mut added))
    });
    (stream, prepare)
}

/// Both of two inputs.
fn both(one: Prepare, other: Prepare) -> Prepare {
    Box::new(move |events| {
        let (one, other) = (one(events), other(events));
        Box::new(move || {
            one();
            other();
        })
    })
}

/// The end of a circuit whose rows a function writes as text.
fn output<K: DBData, V: DBData>(stream: &Keyed<K, V>, row: fn(&K, &V) -> Vec<String>) -> Take {
    let handle = stream.accumulate_output();
    Box::new(move |view| match view {
        Some(view) => {
            for (key, value, weight) in handle.concat().iter() {
                view.add(row(&key, &value), weight);
            }
        }
        None => drop(handle.take_from_all()),
    })
}
