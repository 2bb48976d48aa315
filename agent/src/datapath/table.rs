//! A hash map of the kernel that knows its own name, so that whatever goes wrong says with which map.

use std::collections::BTreeMap;

use aya::{
    Pod,
    maps::{HashMap, MapData, MapError},
};

use super::{DatapathError, error::Named as _};

/// A hash map, opened.
pub(super) struct Table<K, V> {
    name: &'static str,
    map: HashMap<MapData, K, V>,
}

impl<K: Pod, V: Pod> Table<K, V> {
    pub(super) const fn new(name: &'static str, map: HashMap<MapData, K, V>) -> Self {
        Self { name, map }
    }

    /// `None` if there is no such element, which is an answer and no failure.
    pub(super) fn get(&self, key: K) -> Result<Option<V>, DatapathError> {
        match self.map.get(&key, 0) {
            Err(MapError::KeyNotFound) => Ok(None),
            found => found.map(Some).named("read", self.name),
        }
    }

    /// Adds the element, or replaces it.
    pub(super) fn put(&mut self, key: K, value: V) -> Result<(), DatapathError> {
        self.map.insert(key, value, 0).named("write", self.name)
    }

    /// Whether it was there: removing what is not is done.
    pub(super) fn remove(&mut self, key: K) -> Result<bool, DatapathError> {
        match self.map.remove(&key) {
            Err(MapError::KeyNotFound) => Ok(false),
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(false)
            }
            removed => removed.map(|()| true).named("remove from", self.name),
        }
    }

    pub(super) fn keys(&self) -> Result<Vec<K>, DatapathError> {
        self.map.keys().collect::<Result<_, _>>().named("read", self.name)
    }

    /// Everything that is in it.
    pub(super) fn all(&self) -> Result<BTreeMap<K, V>, DatapathError>
    where
        K: Ord,
    {
        self.map.iter().collect::<Result<_, _>>().named("read", self.name)
    }
}
