//! Decodes no more elements than a budget has. It knows serde, and nothing of the format.
//!
//! An element may have no bytes: `()`, an empty array, a struct of those. Then the number in front of a
//! sequence or a map is all that says how much work it is, and whoever made the bytes chose that number. So
//! the deserializer here takes the number from the budget before the first element is made. That is one
//! subtraction for a sequence or a map, however long, and nothing for all else. Tuples, arrays and structs
//! take nothing: their lengths are the type's.

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use walchan_core::planted::planted;

/// How many elements of sequences and maps may still be made.
#[derive(Clone, Copy)]
pub(crate) struct Budget<'a>(&'a Cell<u64>);

impl<'a> Budget<'a> {
    pub(crate) fn new(left: &'a Cell<u64>) -> Self {
        Budget(left)
    }

    /// Takes what a sequence or a map says that it has. bincode says it always.
    #[inline]
    fn take<E: Error>(self, elements: Option<usize>) -> Result<(), E> {
        let elements = elements.map_or(u64::MAX, |elements| elements as u64);
        let left = self.0.get().checked_sub(elements);
        if left.is_none() && !planted!("elements_not_counted") {
            return Err(too_many(elements));
        }
        self.0.set(left.unwrap_or(0));
        Ok(())
    }
}

#[cold]
fn too_many<E: Error>(elements: u64) -> E {
    E::custom(format_args!(
        "a length of {elements} is more elements than a payload of its size may have"
    ))
}

/// Makes a `T` within a budget.
pub(crate) struct Within<'a, T>(Budget<'a>, PhantomData<fn() -> T>);

impl<'a, T> Within<'a, T> {
    pub(crate) fn new(budget: Budget<'a>) -> Self {
        Within(budget, PhantomData)
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Within<'_, T> {
    type Value = T;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<T, D::Error> {
        T::deserialize(Bounded {
            inner,
            budget: self.0,
        })
    }
}

/// Something of serde's, and the budget that goes along: a deserializer, a visitor, a seed, an access.
struct Bounded<'a, I> {
    inner: I,
    budget: Budget<'a>,
}

/// Methods that make no element themselves: nothing goes along.
macro_rules! pass_on {
    ($($method:ident($($arg:ident: $type:ty),*))*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method($($arg,)* visitor)
        }
    )*};
}

/// Methods that may lead to elements: the budget goes along.
macro_rules! bound {
    ($($method:ident($($arg:ident: $type:ty),*))*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            let Bounded { inner, budget } = self;
            inner.$method($($arg,)* Bounded { inner: visitor, budget })
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = D::Error;

    pass_on! {
        deserialize_bool()
        deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64() deserialize_char()
        deserialize_str() deserialize_string() deserialize_bytes() deserialize_byte_buf()
        deserialize_unit() deserialize_unit_struct(name: &'static str)
    }

    bound! {
        deserialize_option()
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    // bincode has none of these three.
    pass_on! {
        deserialize_any() deserialize_identifier() deserialize_ignored_any()
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let Bounded { inner, budget } = self;
        let inner_visitor = Bounded {
            inner: visitor,
            budget,
        };
        inner.deserialize_seq(Counting(inner_visitor))
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let Bounded { inner, budget } = self;
        let inner_visitor = Bounded {
            inner: visitor,
            budget,
        };
        inner.deserialize_map(Counting(inner_visitor))
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    #[inline]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let budget = self.budget;
        self.inner.visit_some(Bounded { inner, budget })
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let budget = self.budget;
        self.inner.visit_newtype_struct(Bounded { inner, budget })
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let budget = self.budget;
        self.inner.visit_seq(Bounded { inner, budget })
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let budget = self.budget;
        self.inner.visit_map(Bounded { inner, budget })
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let budget = self.budget;
        self.inner.visit_enum(Bounded { inner, budget })
    }
}

/// The visitor of a sequence or a map: pays for its elements first.
struct Counting<'a, V>(Bounded<'a, V>);

impl<'de, V: Visitor<'de>> Visitor<'de> for Counting<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.budget.take(access.size_hint())?;
        self.0.visit_seq(access)
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.budget.take(access.size_hint())?;
        self.0.visit_map(access)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<'_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let budget = self.budget;
        self.inner.deserialize(Bounded { inner, budget })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        inner: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let budget = self.budget;
        self.inner.next_element_seed(Bounded { inner, budget })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        inner: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let budget = self.budget;
        self.inner.next_key_seed(Bounded { inner, budget })
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, inner: S) -> Result<S::Value, A::Error> {
        let budget = self.budget;
        self.inner.next_value_seed(Bounded { inner, budget })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'a, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<'a, A> {
    type Error = A::Error;
    type Variant = Bounded<'a, A::Variant>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        inner: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let budget = self.budget;
        let (value, inner) = self.inner.variant_seed(Bounded { inner, budget })?;
        Ok((value, Bounded { inner, budget }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, inner: S) -> Result<S::Value, A::Error> {
        let budget = self.budget;
        self.inner.newtype_variant_seed(Bounded { inner, budget })
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, inner: V) -> Result<V::Value, A::Error> {
        let budget = self.budget;
        self.inner.tuple_variant(len, Bounded { inner, budget })
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        inner: V,
    ) -> Result<V::Value, A::Error> {
        let budget = self.budget;
        self.inner.struct_variant(fields, Bounded { inner, budget })
    }
}
