//! Laying environment variables over the configuration file with figment.

use std::sync::Arc;

use figment::value::{Dict, Empty, Map as ByProfile, Tag, Value as Layered};
use figment::{Figment, Metadata, Profile, Provider};

use super::environment::Variable;
use super::validate::LISTS;
use crate::collections::inserted;
use crate::document::{Map, Value, ValueKind, ValueOrigin};

/// The values of the file or of one variable, for figment.
struct Layer<'a> {
    /// The name of the variable; empty for the file.
    name: &'a str,
    values: Dict,
}

/// The values of the file with those of the variables laid over them. Each has the origin of the layer that set it; a
/// map that is in the file keeps that origin.
///
/// figment copies its input. So it gets only the keys that variables set, because a watch list may be long.
pub(super) fn merge(file: Map, variables: &[Variable]) -> Map {
    let is_set = |key: &str| variables.iter().any(|variable| variable.keys[0] == key);
    let is_replaced = |key: &str| variables.iter().any(|variable| variable.keys[..] == [key] && LISTS.contains(&key));
    let (touched, untouched): (Vec<_>, Vec<_>) = file.into_iter().partition(|(key, _)| is_set(key));
    let touched: Map =
        touched.into_iter().filter(|(key, _)| !is_replaced(key)).map(|(key, value)| by_index(key, value)).collect();

    let of_file = inserted(touched.iter().map(|(key, value)| (key.to_owned(), layered(value))));
    let of_variables = variables.iter().map(|variable| Layer { name: &variable.name, values: nested(variable) });
    let figment = of_variables.fold(Figment::from(Layer { name: "", values: of_file }), Figment::merge);
    let merged = figment.find_value("").ok().and_then(Layered::into_dict).unwrap_or_default();

    let origin_of = |tag: Tag| {
        let name = &*figment.get_metadata(tag)?.name;
        variables
            .iter()
            .zip(0..)
            .find(|(variable, _)| variable.name == name)
            .map(|(_, index)| ValueOrigin::Variable(index))
    };
    let merged = merged.into_iter().map(|(key, value)| {
        let value = unlayered(value, touched.get(&key), &origin_of);
        in_order(key.into(), value)
    });
    untouched.into_iter().chain(merged).collect()
}

/// The key by which figment knows an element of a list.
pub(super) fn index_key(index: u32) -> String {
    // The order of the keys is that of the indices.
    format!("[{index:010}]")
}

fn is_index_key(key: &str) -> bool {
    key.len() == index_key(0).len() && key.starts_with('[')
}

/// A list as a map from indices to elements: figment replaces a list as a whole, but a variable may set one element.
fn by_index(key: Arc<str>, value: Value) -> (Arc<str>, Value) {
    match value {
        Value { origin, kind: ValueKind::List(elements) } if LISTS.contains(&&*key) => {
            let members = elements.into_iter().zip(0..).map(|(element, index)| (index_key(index).into(), element));
            (key, Value { origin, kind: ValueKind::Map(members.collect()) })
        }
        value => (key, value),
    }
}

/// Undoes [`by_index`].
fn in_order(key: Arc<str>, value: Value) -> (Arc<str>, Value) {
    match value {
        Value { origin, kind: ValueKind::Map(members) }
            if LISTS.contains(&&*key) && members.iter().all(|(key, _)| is_index_key(key)) =>
        {
            let elements = members.into_iter().map(|(_, element)| element);
            (key, Value { origin, kind: ValueKind::List(elements.collect()) })
        }
        value => (key, value),
    }
}

/// A tree that has only the variable's value.
fn nested(variable: &Variable) -> Dict {
    let (key, value) = by_index(variable.keys[0].as_str().into(), variable.value.clone());
    let nest = |inner, key: &String| Layered::from(Dict::from([(key.clone(), inner)]));
    let below = variable.keys[1..].iter().rev().fold(layered(&value), nest);
    Dict::from([(key.to_string(), below)])
}

fn layered(value: &Value) -> Layered {
    match &value.kind {
        ValueKind::Null | ValueKind::Unset => Layered::from(Empty::None),
        ValueKind::Text(text) => Layered::from(&**text),
        ValueKind::List(list) => Layered::from(list.iter().map(layered).collect::<Vec<_>>()),
        ValueKind::Map(map) => {
            Layered::from(inserted::<Dict, _>(map.iter().map(|(key, value)| (key.to_owned(), layered(value)))))
        }
    }
}

/// Undoes [`layered`]. `before` is what the file has there.
fn unlayered(value: Layered, before: Option<&Value>, origin_of: &impl Fn(Tag) -> Option<ValueOrigin>) -> Value {
    let of_variable = origin_of(value.tag());
    let of_file = before.map(|before| before.origin).unwrap_or_default();
    let origin = of_variable.unwrap_or(of_file);
    match value {
        Layered::Dict(_, dict) => {
            let before_map = before.and_then(Value::as_map);
            let members = dict.into_iter().map(|(key, value)| {
                let value = unlayered(value, before_map.and_then(|map| map.get(&key)), origin_of);
                (key.into(), value)
            });
            let kind = ValueKind::Map(members.collect());
            Value { origin: if before_map.is_some() { of_file } else { origin }, kind }
        }
        Layered::Array(_, elements) => {
            let before = before.filter(|_| of_variable.is_none()).and_then(Value::as_list).unwrap_or_default();
            let before = before.iter().map(Some).chain(std::iter::repeat(None));
            let elements = elements.into_iter().zip(before);
            let elements = elements.map(|(element, before)| unlayered(element, before, origin_of)).collect();
            Value { origin, kind: ValueKind::List(elements) }
        }
        Layered::String(_, text) => Value { origin, kind: ValueKind::Text(text.into()) },
        _ => Value { origin, kind: ValueKind::Null },
    }
}

// === impl Layer ===

impl Provider for Layer<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.to_owned())
    }

    fn data(&self) -> Result<ByProfile<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}
