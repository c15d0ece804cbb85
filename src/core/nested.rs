//! JSON that nests as deeply as models do. A graph nests two levels for each module, while serde_json refuses more than 128
//! levels to protect the stack. Deeper text is read on a thread whose stack is large enough.

/// The deepest that is read and written: more than a thousand modules inside each other.
pub const DEEPEST: usize = 3000;
/// The depth that any thread can read, and that a reader accepts with its default limit.
const SHALLOW: usize = 100;
/// Bytes of stack for one level, with a wide margin; only stack that is used takes memory.
const LEVEL: usize = 32 << 10;

/// Reads the text with `read`, whose reader has no depth limit and a stack that is large enough. `None` where the text nests
/// deeper than any graph.
pub fn read<'a, T: Send>(
    text: &'a [u8],
    read: impl FnOnce(serde_json::Deserializer<serde_json::de::SliceRead<'a>>) -> T + Send,
) -> Option<T> {
    let depth = depth(text);
    if depth <= SHALLOW {
        return Some(read(serde_json::Deserializer::from_slice(text)));
    }
    if depth > DEEPEST {
        return None;
    }
    let deep = || {
        let mut json = serde_json::Deserializer::from_slice(text);
        json.disable_recursion_limit();
        read(json)
    };
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(depth * LEVEL);
        builder.spawn_scoped(scope, deep).ok()?.join().ok()
    })
}

/// The deepest level to which lists and objects nest.
pub fn depth(text: &[u8]) -> usize {
    let (mut now, mut most, mut inside_text) = (0_usize, 0, false);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => inside_text = !inside_text,
            b'\\' if inside_text => drop(bytes.next()),
            b'[' | b'{' if !inside_text => {
                now += 1;
                most = most.max(now);
            }
            b']' | b'}' if !inside_text => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    fn deep(levels: usize) -> Option<bool> {
        let text = "[".repeat(levels) + &"]".repeat(levels);
        read(text.as_bytes(), |mut json| {
            serde_json::Value::deserialize(&mut json).is_ok()
        })
    }

    #[test]
    fn deep_texts_are_read_and_endless_ones_refused() {
        assert_eq!([deep(1), deep(127), deep(129), deep(3000)], [Some(true); 4]);
        assert_eq!(deep(3001), None);
        assert_eq!(deep(1_000_000), None);
        assert_eq!(depth(br#"{"a[[[\"[": [1, "]"]}"#), 2);
    }
}
