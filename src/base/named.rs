//! Values that are listed by name: rules, losses.

/// Makes values of `$type`, which have a `name()`, equal where their names are, and lets configurations write that name
/// and find it in the list `$all`; `$what` is what one is called in a message.
macro_rules! by_name {
    ($type:ident, $what:literal, $all:expr) => {
        impl $type {
            /// Finds the value of this name, if there is one.
            pub fn named(name: &str) -> Option<Self> {
                $all.into_iter().find(|known: &Self| known.name() == name)
            }
        }

        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.name() == other.name()
            }
        }

        impl Eq for $type {}

        impl std::hash::Hash for $type {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.name().hash(state);
            }
        }

        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> std::result::Result<Self, D::Error> {
                let name = String::deserialize(deserializer)?;
                Self::named(&name).ok_or_else(|| {
                    let names: Vec<&str> = $all.iter().map(|known| known.name()).collect();
                    let (what, names) = ($what, names.join(", "));
                    serde::de::Error::custom(format!("there is no {what} `{name}`; there are {names}"))
                })
            }
        }
    };
}
pub(crate) use by_name;
