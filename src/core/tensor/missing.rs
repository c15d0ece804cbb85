//! What a message says of a key that a file does not have.

/// How many keys a message names.
const MOST_SHOWN: usize = 20;

/// The keys that there are, nearest first.
pub(super) fn missing(mut keys: Vec<String>, key: &str) -> String {
    if keys.is_empty() {
        return "not in the file, which holds no tensors".to_owned();
    }
    keys.sort();
    keys.sort_by_cached_key(|known| {
        let beginning = known.starts_with(key) && !key.is_empty();
        let likeness = strsim::normalized_levenshtein(key, known);
        (!beginning, -(likeness * 1e6) as i64)
    });
    if keys.len() > MOST_SHOWN {
        keys.truncate(MOST_SHOWN);
        keys.push("...".to_owned());
    }
    format!("not in the file; there are: {}", keys.join(", "))
}
