//! How the way back is written: maps as lists of pairs, as JSON's keys are words, and nothing copied for it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::state::{AddressKey, InterfaceName, RouteKey};

/// A key, whole: what others read of an address's leaves its network out.
pub(super) trait Key: Ord + Copy {
    type Whole: Serialize + DeserializeOwned + From<Self> + Into<Self>;
}

impl Key for InterfaceName {
    type Whole = Self;
}

impl Key for RouteKey {
    type Whole = Self;
}

impl Key for AddressKey {
    type Whole = WholeAddressKey;
}

/// The device, the address, and the network of its other end.
type WholeAddressKey = (InterfaceName, IpAddr, Option<IpNet>);

impl From<AddressKey> for WholeAddressKey {
    fn from(key: AddressKey) -> Self {
        let AddressKey {
            device,
            local,
            network,
        } = key;
        (device, local, network)
    }
}

impl From<WholeAddressKey> for AddressKey {
    fn from((device, local, network): WholeAddressKey) -> Self {
        Self {
            device,
            local,
            network,
        }
    }
}

pub(super) mod pairs {
    use super::*;

    pub(in super::super) fn serialize<K: Key, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map.iter().map(|(key, value)| (K::Whole::from(*key), value)))
    }

    pub(in super::super) fn deserialize<'de, K: Key, V: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        let pairs = Vec::<(K::Whole, V)>::deserialize(deserializer)?;
        let pairs = pairs.into_iter();
        Ok(pairs.map(|(key, value)| (key.into(), value)).collect())
    }
}

/// Of each device its addresses in their order: a list of them all.
pub(super) mod places {
    use super::*;

    type Places = BTreeMap<InterfaceName, Vec<AddressKey>>;

    pub(in super::super) fn serialize<S: Serializer>(
        places: &Places,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let keys = places.values().flatten();
        serializer.collect_seq(keys.map(|key| WholeAddressKey::from(*key)))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Places, D::Error> {
        let mut places = Places::new();
        for key in Vec::<WholeAddressKey>::deserialize(deserializer)? {
            let key = AddressKey::from(key);
            places.entry(key.device).or_default().push(key);
        }
        Ok(places)
    }
}
