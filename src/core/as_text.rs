//! Types that are saved as their text: in JSON each is a string.

/// Makes the conversions that serde uses (`try_from` and `into` of `String`) from the type's `FromStr` and `Display`.
macro_rules! as_text {
    ($type:ident) => {
        impl TryFrom<String> for $type {
            type Error = $crate::error::Error;

            fn try_from(text: String) -> Result<$type, Self::Error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    };
}
