//! Counts the elements of what is encoded, so that nothing is sent that `bounded` would not decode. It knows
//! serde, and nothing of the format.
//!
//! As there, sequences and maps count as many elements as they say that they have, and all else counts none.

use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::cell::Cell;
use std::fmt::Display;

/// A value, and the count of its elements.
pub(crate) struct Elements<'a, T: ?Sized> {
    value: &'a T,
    count: Count<'a>,
}

#[derive(Clone, Copy)]
struct Count<'a> {
    elements: &'a Cell<u64>,
    /// More are an error at once: before they are encoded one by one.
    max: u64,
}

impl<'a, T: Serialize + ?Sized> Elements<'a, T> {
    /// Adds them to `elements` as it is serialized; an error above `max`.
    pub(crate) fn new(value: &'a T, elements: &'a Cell<u64>, max: u64) -> Self {
        let count = Count { elements, max };
        Elements { value, count }
    }
}

impl<T: Serialize + ?Sized> Serialize for Elements<'_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        let count = self.count;
        self.value.serialize(Counting { inner, count })
    }
}

impl Count<'_> {
    #[inline]
    fn add<E: Error>(self, elements: Option<usize>) -> Result<(), E> {
        // Without a length bincode does not encode it.
        let more = elements.map_or(0, |elements| elements as u64);
        let elements = self.elements.get().saturating_add(more);
        if elements > self.max {
            return Err(too_many(elements, self.max));
        }
        self.elements.set(elements);
        Ok(())
    }
}

#[cold]
fn too_many<E: Error>(elements: u64, max: u64) -> E {
    E::custom(format_args!(
        "{elements} elements of sequences and maps, and no payload has more than {max}"
    ))
}

/// Something that serializes, and the count that goes along.
struct Counting<'a, I> {
    inner: I,
    count: Count<'a>,
}

/// Values that have no elements.
macro_rules! pass_on {
    ($($method:ident($($arg:ident: $type:ty),*))*) => {$(
        #[inline]
        fn $method(self, $($arg: $type),*) -> Result<S::Ok, S::Error> {
            self.inner.$method($($arg),*)
        }
    )*};
}

/// Values that have some, one behind the other.
macro_rules! begin {
    ($($method:ident($($arg:ident: $type:ty),*) -> $compound:ident)*) => {$(
        #[inline]
        fn $method(self, $($arg: $type),*) -> Result<Self::$compound, S::Error> {
            let count = self.count;
            let inner = self.inner.$method($($arg),*)?;
            Ok(Counting { inner, count })
        }
    )*};
}

impl<'a, S: Serializer> Serializer for Counting<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Counting<'a, S::SerializeSeq>;
    type SerializeTuple = Counting<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Counting<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Counting<'a, S::SerializeTupleVariant>;
    type SerializeMap = Counting<'a, S::SerializeMap>;
    type SerializeStruct = Counting<'a, S::SerializeStruct>;
    type SerializeStructVariant = Counting<'a, S::SerializeStructVariant>;

    pass_on! {
        serialize_bool(v: bool)
        serialize_i8(v: i8) serialize_i16(v: i16) serialize_i32(v: i32) serialize_i64(v: i64)
        serialize_i128(v: i128)
        serialize_u8(v: u8) serialize_u16(v: u16) serialize_u32(v: u32) serialize_u64(v: u64)
        serialize_u128(v: u128)
        serialize_f32(v: f32) serialize_f64(v: f64) serialize_char(v: char)
        serialize_str(v: &str) serialize_bytes(v: &[u8])
        serialize_none() serialize_unit() serialize_unit_struct(name: &'static str)
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str)
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let count = self.count;
        self.inner.serialize_some(&Elements { value, count })
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let count = self.count;
        let value = Elements { value, count };
        self.inner.serialize_newtype_struct(name, &value)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let count = self.count;
        let value = Elements { value, count };
        self.inner
            .serialize_newtype_variant(name, index, variant, &value)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        let count = self.count;
        count.add(len)?;
        let inner = self.inner.serialize_seq(len)?;
        Ok(Counting { inner, count })
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        let count = self.count;
        count.add(len)?;
        let inner = self.inner.serialize_map(len)?;
        Ok(Counting { inner, count })
    }

    begin! {
        serialize_tuple(len: usize) -> SerializeTuple
        serialize_tuple_struct(name: &'static str, len: usize) -> SerializeTupleStruct
        serialize_tuple_variant(
            name: &'static str, index: u32, variant: &'static str, len: usize
        ) -> SerializeTupleVariant
        serialize_struct(name: &'static str, len: usize) -> SerializeStruct
        serialize_struct_variant(
            name: &'static str, index: u32, variant: &'static str, len: usize
        ) -> SerializeStructVariant
    }

    #[inline]
    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// What has elements or fields: each is counted in its turn.
macro_rules! compound {
    ($($compound:ident: $($method:ident($($key:ident: $type:ty)?)),*;)*) => {$(
        impl<S: $compound> $compound for Counting<'_, S> {
            type Ok = S::Ok;
            type Error = S::Error;

            $(
                #[inline]
                fn $method<T: Serialize + ?Sized>(
                    &mut self,
                    $($key: $type,)?
                    value: &T,
                ) -> Result<(), S::Error> {
                    let count = self.count;
                    self.inner.$method($($key,)? &Elements { value, count })
                }
            )*

            #[inline]
            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        }
    )*};
}

compound! {
    SerializeSeq: serialize_element();
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeMap: serialize_key(), serialize_value();
    SerializeStruct: serialize_field(key: &'static str);
    SerializeStructVariant: serialize_field(key: &'static str);
}
