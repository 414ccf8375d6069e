//! Text that operators copy by counting references: cheaper than `String` wherever a row is stored more than once.

use std::fmt;
use std::sync::Arc;

use rkyv::ser::Serializer;
use rkyv::string::{ArchivedString, StringResolver};
use rkyv::{Archive, Deserialize, Fallible, Serialize};
use size_of::{Context, SizeOf};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, feldera_macros::IsNone)]
pub struct Text(Arc<str>);

impl Default for Text {
    fn default() -> Text {
        Text::from("")
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(text.into())
    }
}

impl std::ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self)
    }
}

impl SizeOf for Text {
    fn size_of_children(&self, context: &mut Context) {
        context.add(self.len());
    }
}

// The crate asks for an archived form of all data, for batches that it spills to disk; none are here.

impl Archive for Text {
    type Archived = ArchivedString;
    type Resolver = StringResolver;

    unsafe fn resolve(&self, position: usize, resolver: StringResolver, out: *mut ArchivedString) {
        // SAFETY: the caller's promises are those that this function asks for.
        unsafe { ArchivedString::resolve_from_str(self, position, resolver, out) };
    }
}

impl<S: Serializer + ?Sized> Serialize<S> for Text {
    fn serialize(&self, serializer: &mut S) -> Result<StringResolver, S::Error> {
        ArchivedString::serialize_from_str(self, serializer)
    }
}

impl<D: Fallible + ?Sized> Deserialize<Text, D> for ArchivedString {
    fn deserialize(&self, _: &mut D) -> Result<Text, D::Error> {
        Ok(Text::from(self.as_str()))
    }
}
