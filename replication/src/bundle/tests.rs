//! Bundles come back as they were, and damage of every kind is refused.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use proptest::prelude::*;
use tributary_storage::RegionId;

use super::*;

fn origin(region: u16) -> OriginId {
    OriginId::first(RegionId(region))
}

fn rows(count: usize) -> RecordBatch {
    let names: StringArray = (0..count)
        .map(|i| (i % 3 != 0).then(|| format!("name {i}")))
        .collect();
    let stamps: Int64Array = (0..count).map(|i| Some(i as i64 + 1)).collect();
    let deleted: BooleanArray = (0..count).map(|i| Some(i % 2 == 0)).collect();
    let sums: Decimal128Array = (0..count).map(|i| Some(i as i128 * 1_000_003)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("k0", Arc::new(names)),
        ("stamp", Arc::new(stamps)),
        ("deleted", Arc::new(deleted)),
        (
            "p0",
            Arc::new(sums.with_precision_and_scale(38, 0).expect("valid")),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .expect("a batch")
}

fn blob(bytes: &[u8]) -> RecordBatch {
    let column: ArrayRef = Arc::new(BinaryArray::from_iter_values([bytes]));
    RecordBatch::try_from_iter([("value", column)]).expect("a batch")
}

fn bundle() -> Bundle {
    let section = |object, origin, rows| Section {
        object,
        origin,
        fingerprint: Fingerprint([3; 16]),
        rows,
    };
    let fragment = FragmentId {
        view: ObjectId(7),
        number: 1,
    };
    Bundle {
        sender: origin(1),
        cluster: ClusterId([9; 16]),
        tick: Tick(88),
        frontier: Frontier::from_iter([
            (origin(1), Epoch(9)),
            (origin(2), Epoch(4)),
            (origin(3), Epoch(70)),
        ]),
        collected: Frontier::from_iter([(origin(1), Epoch(3)), (origin(3), Epoch(70))]),
        included: vec![
            Included {
                origin: origin(1),
                from: Epoch(7),
                to: Epoch(9),
                chain: ChainHash([1; 16]),
            },
            Included {
                origin: origin(2),
                from: Epoch(0),
                to: Epoch(4),
                chain: ChainHash([2; 16]),
            },
        ],
        chunk: Chunk::ONLY,
        sections: vec![
            section(SectionObject::Slots(fragment), origin(1), rows(20)),
            section(SectionObject::Slots(fragment), origin(2), rows(0)),
            section(SectionObject::Rows(ObjectId(8)), origin(1), rows(3)),
            section(
                SectionObject::Blob("catalog".into()),
                origin(1),
                blob(b"absolute"),
            ),
        ],
    }
}

/// The same bytes under a checksum that matches them again.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = crc32fast::hash(&bytes[PREFIX_BYTES - 4..]);
    bytes[6..10].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

#[test]
fn bundles_come_back_as_they_were() {
    let bundle = bundle();
    let bytes = bundle.encode();
    assert_eq!(Bundle::decode(&bytes).expect("decodes"), bundle);
    let header = Bundle::decode_header(&bytes).expect("decodes");
    assert_eq!(
        (header.sender, header.sections.len(), header.sections[0].rows),
        (origin(1), 4, 20)
    );
    assert_eq!(bundle.encode(), bytes, "the same bundle gives the same bytes");
}

#[test]
fn every_damaged_bit_and_every_cut_is_noticed() {
    let bytes = bundle().encode();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Bundle::decode(&damaged).is_err(), "bit {bit}");
    }
    for end in 0..bytes.len() {
        assert!(Bundle::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
    assert!(
        Bundle::decode(&[bytes.as_ref(), &[0]].concat()).is_err(),
        "a byte more"
    );
    assert!(
        Bundle::decode(&resealed([bytes.as_ref(), &[0]].concat())).is_err(),
        "a byte more, checksummed"
    );
}

#[test]
fn cuts_under_a_valid_checksum_are_noticed() {
    let bytes = bundle().encode();
    for end in PREFIX_BYTES..bytes.len() {
        assert!(
            Bundle::decode(&resealed(bytes[..end].to_vec())).is_err(),
            "cut at {end}"
        );
    }
}

fn encoded_sections(bundle: &Bundle) -> Vec<Vec<u8>> {
    let sections = bundle.sections.iter();
    sections.map(|section| ipc::encode(&section.rows)).collect()
}

#[test]
fn another_format_is_named() {
    let mut bytes = bundle().encode().to_vec();
    bytes[4] = 77;
    let expected = ReplicationError::Format {
        what: "a bundle".into(),
        found: 77,
        known: BUNDLE_FORMAT,
    };
    assert_eq!(Bundle::decode(&bytes), Err(expected));
}

#[test]
fn a_bundle_from_before_tombstones_were_dropped_is_read() {
    let bundle = bundle();
    let encoded = encoded_sections(&bundle);
    let header = postcard::to_stdvec(&bundle.header(&encoded)).expect("plain data serializes");
    let length = u32::try_from(header.len()).expect("a short header").to_le_bytes();
    let prefix = [MAGIC.as_slice(), &1u16.to_le_bytes(), &[0; 4], &length].concat();
    let bytes = resealed([prefix, header, encoded.concat()].concat());
    let expected = Bundle {
        collected: Frontier::new(),
        ..bundle
    };
    assert_eq!(Bundle::decode(&bytes), Ok(expected));
}

#[test]
fn headers_that_no_sender_makes_are_refused() {
    let broken: [(&str, fn(&mut BundleHeader)); 9] = [
        ("tombstones of an unknown epoch", |header| {
            header.collected.set(origin(1), Epoch(10))
        }),
        ("a chunk", |header| header.chunk.last = false),
        ("nothing included", |header| header.included.clear()),
        ("backwards", |header| header.included[0].from = Epoch(10)),
        ("beyond the frontier", |header| header.included[0].to = Epoch(10)),
        ("an origin twice", |header| header.included[1].origin = origin(1)),
        ("a section of another origin", |header| {
            header.sections[0].origin = origin(3)
        }),
        ("a section twice", |header| header.sections[1].origin = origin(1)),
        ("a blob of two rows", |header| header.sections[3].rows = 2),
    ];
    let bundle = bundle();
    let encoded = encoded_sections(&bundle);
    assert_eq!(bundle.header(&encoded).check(), Ok(()));
    for (problem, breaking) in broken {
        let mut header = bundle.header(&encoded);
        breaking(&mut header);
        assert!(header.check().is_err(), "{problem}");
    }
}

#[test]
fn a_section_that_claims_to_unpack_to_a_terabyte_is_refused_before_it_does() {
    let section = ipc::encode(&rows(1000));
    // Buffers begin with their unpacked length. Every length that stands in the stream is blown up.
    let mut refused = 0;
    for at in 0..section.len() - 8 {
        let mut damaged = section.clone();
        damaged[at..at + 8].copy_from_slice(&(1i64 << 40).to_le_bytes());
        refused +=
            usize::from(ipc::decode(&damaged).is_err_and(|error| error.to_string().contains("unpack")));
    }
    assert!(refused > 0, "no claim was met");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_never_panic_and_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Bundle::decode(&bytes).is_err());
        prop_assert!(ipc::decode(&bytes).is_err());
        let prefixed = [MAGIC.as_slice(), &BUNDLE_FORMAT.to_le_bytes(), &[0; 8], &bytes].concat();
        prop_assert!(Bundle::decode(&resealed(prefixed)).is_err());
    }

    /// Damage behind a valid checksum: a peer with a defect. It may go unnoticed where it hits values; it
    /// must not panic, and what is read must be a bundle that can be sent.
    #[test]
    fn damage_under_a_valid_checksum_never_panics(
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = bundle().encode().to_vec();
        for (at, value) in damages {
            let at = PREFIX_BYTES - 4 + at.index(bytes.len() - PREFIX_BYTES + 4);
            bytes[at] = value;
        }
        if let Ok(read) = Bundle::decode(&resealed(bytes)) {
            prop_assert_eq!(read.sections.len(), 4);
        }
    }

    #[test]
    fn any_values_come_back(names in prop::collection::vec(prop::option::of(".{0,12}"), 0..50)) {
        let schema = Arc::new(Schema::new(vec![Field::new("k0", DataType::Utf8, true)]));
        let column: ArrayRef = Arc::new(names.into_iter().collect::<StringArray>());
        let batch = RecordBatch::try_new(schema, vec![column]).expect("a batch");
        prop_assert_eq!(ipc::decode(&ipc::encode(&batch)), Ok(batch));
    }
}
