//! One table of the file, read key by key: a wrong key is noted and the next one is read all the same.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::RangeInclusive;

use toml::de::{DeTable, DeValue};

use super::fault::Fault;

/// Collects the faults of one file.
pub(super) struct Notes<'t> {
    file: &'t str,
    text: &'t str,
    faults: RefCell<Vec<Fault>>,
}

/// A table, and which of its keys were asked for: what is left over in the end is unknown.
pub(super) struct Section<'n, 't> {
    notes: &'n Notes<'t>,
    /// As in the file, `[gateway.limits]`.
    name: &'static str,
    table: Option<&'n DeTable<'t>>,
    /// Offset of the header, for faults of the section as a whole.
    start: usize,
    known: RefCell<Vec<&'static str>>,
    sound: Cell<bool>,
}

/// A value and its offset.
pub(super) struct Value<'n, 't> {
    pub(super) value: &'n DeValue<'t>,
    pub(super) at: usize,
}

impl<'t> Notes<'t> {
    pub(super) fn new(text: &'t str, file: &'t str) -> Notes<'t> {
        Notes { file, text, faults: RefCell::default() }
    }

    /// Notes a fault at a byte offset of the text.
    pub(super) fn fault(&self, at: usize, message: impl fmt::Display) {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let place = self.file.to_owned();
        let fault = Fault { place, line: Some(line), message: message.to_string() };
        self.faults.borrow_mut().push(fault);
    }

    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults.into_inner()
    }
}

impl<'n, 't> Section<'n, 't> {
    pub(super) fn new(
        notes: &'n Notes<'t>,
        name: &'static str,
        table: Option<&'n DeTable<'t>>,
        start: usize,
    ) -> Section<'n, 't> {
        let known = RefCell::default();
        Section { notes, name, table, start, known, sound: Cell::new(true) }
    }

    /// Offset of the section's header.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// False once a key of this section was refused.
    pub(super) fn is_sound(&self) -> bool {
        self.sound.get()
    }

    /// The raw value of `key`, which is a known key from now on.
    pub(super) fn value(&self, key: &'static str) -> Option<Value<'n, 't>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        drop(known);
        self.find(key)
    }

    fn find(&self, key: &str) -> Option<Value<'n, 't>> {
        let found = self.table?.iter().find(|(name, _)| name.get_ref() == key);
        found.map(|(_, value)| Value { value: value.get_ref(), at: value.span().start })
    }

    /// The value of `key` through `read`; a fault is noted as `[section] key: problem`.
    pub(super) fn key<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&DeValue) -> Result<T, String>,
    ) -> Option<T> {
        let Value { value, at } = self.value(key)?;
        read(value).map_err(|problem| self.refuse(key, at, problem)).ok()
    }

    /// As [`key`](Section::key), for a key whose value is a string that `parse` judges.
    pub(super) fn text<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.key(key, |value| string(value).and_then(parse))
    }

    /// Like [`text`](Section::text) for a list, each element judged by itself; a lone string is a list of one.
    /// Elements come with their offsets, the refused ones are left out.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<(usize, T)>> {
        let Value { value, at } = self.value(key)?;
        let one = |at: usize, value: &DeValue| match string(value).and_then(&parse) {
            Ok(value) => Some((at, value)),
            Err(problem) => {
                self.refuse(key, at, problem);
                None
            }
        };
        match value {
            DeValue::Array(array) if array.is_empty() => {
                self.refuse(key, at, "must not be an empty list; leave the key out or fill it in");
                None
            }
            DeValue::Array(array) => {
                Some(array.iter().filter_map(|e| one(e.span().start, e.get_ref())).collect())
            }
            other => Some(one(at, other).into_iter().collect()),
        }
    }

    /// `true` or `false`.
    pub(super) fn switch(&self, key: &'static str) -> Option<bool> {
        self.key(key, |value| match value {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(format!("must be true or false, not {}", shown(other))),
        })
    }

    /// A whole number within `range`.
    pub(super) fn number(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.key(key, |value| match integer(value) {
            Some(number) if range.contains(&number) => Ok(number),
            _ => {
                let (low, high) = range.into_inner();
                Err(format!("must be a whole number from {low} to {high}, not {}", shown(value)))
            }
        })
    }

    /// A table within this one; an empty one if the file has none.
    pub(super) fn table(&self, key: &'static str, name: &'static str) -> Section<'n, 't> {
        let (table, at) = match self.value(key) {
            None => (None, self.start),
            Some(Value { value: DeValue::Table(table), at }) => (Some(table), at),
            Some(Value { value, at }) => {
                self.refuse(key, at, format!("must be a table {name}, not {}", shown(value)));
                (None, at)
            }
        };
        Section::new(self.notes, name, table, at)
    }

    /// A table that stands at `at` as an element of a list of this one.
    pub(super) fn within(
        &self,
        name: &'static str,
        table: &'n DeTable<'t>,
        at: usize,
    ) -> Section<'n, 't> {
        Section::new(self.notes, name, Some(table), at)
    }

    /// The tables of `[[key]]`, in the order of the file.
    pub(super) fn tables(&self, key: &'static str, name: &'static str) -> Vec<Section<'n, 't>> {
        let wrong = |at, what: &DeValue| {
            self.refuse(
                key,
                at,
                format!("must be written {name}, with two brackets, not {}", shown(what)),
            );
        };
        let mut sections = Vec::new();
        match self.value(key) {
            None => {}
            Some(Value { value: DeValue::Array(array), .. }) => {
                for element in array {
                    let at = element.span().start;
                    match element.get_ref() {
                        DeValue::Table(table) => {
                            sections.push(Section::new(self.notes, name, Some(table), at));
                        }
                        other => wrong(at, other),
                    }
                }
            }
            Some(Value { value, at }) => wrong(at, value),
        }
        sections
    }

    /// Notes a fault of `key`.
    pub(super) fn refuse(&self, key: &str, at: usize, problem: impl fmt::Display) {
        self.sound.set(false);
        let space = if self.name.is_empty() { "" } else { " " };
        self.notes.fault(at, format_args!("{}{space}{key}: {problem}", self.name));
    }

    /// Notes that `key` is missing.
    pub(super) fn missing(&self, key: &str, remedy: &str) {
        self.refuse(key, self.start, format_args!("is missing; {remedy}"));
    }

    /// Call last: every key that was not asked for is unknown.
    pub(super) fn end(self) {
        let known = self.known.borrow();
        for (key, _) in self.table.into_iter().flatten() {
            let name = &**key.get_ref();
            if !known.contains(&name) {
                let place = if self.name.is_empty() { "the file" } else { self.name };
                let allowed = known.join(", ");
                let message =
                    format_args!("unknown key {:?} in {place}; allowed: {allowed}", key.get_ref());
                self.notes.fault(key.span().start, message);
            }
        }
    }
}

/// The number, if the value is one and fits.
pub(super) fn integer(value: &DeValue) -> Option<u64> {
    match value {
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    }
}

/// The value as a fault quotes it.
pub(super) fn shown(value: &DeValue) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(value) => value.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn string<'v>(value: &'v DeValue) -> Result<&'v str, String> {
    match value {
        DeValue::String(text) => Ok(text),
        other => Err(format!("must be a string in quotes, not {}", shown(other))),
    }
}
