//! One name in a scope, as two integers: an interned base and a number (`add_2` is `add` and 2).
//!
//! Names are made for every operation of every run, so making one must not touch a string. Bases come from schemas,
//! attribute paths and argument names, of which a process has few; they are interned for good.

use std::fmt;
use std::sync::Arc;

use graphpatch_locks::{Lazy, RwLock};
use rustc_hash::FxHashMap;

/// An interned base name.
pub type Base = u32;

/// Python's keywords; interned first, so that "is a keyword" is one comparison.
const KEYWORDS: &str = "False None True and as assert async await break class continue def del elif else except \
    finally for from global if import in is lambda nonlocal not or pass raise return try while with yield";

/// Python's builtins (of 3.11, and those added up to 3.14) and the names that torch.fx adds; interned second.
const BUILTINS: &str = "ArithmeticError AssertionError AttributeError BaseException BaseExceptionGroup \
    BlockingIOError BrokenPipeError BufferError BytesWarning ChildProcessError ConnectionAbortedError \
    ConnectionError ConnectionRefusedError ConnectionResetError DeprecationWarning EOFError Ellipsis \
    EncodingWarning EnvironmentError Exception ExceptionGroup FileExistsError FileNotFoundError \
    FloatingPointError FutureWarning GeneratorExit IOError ImportError ImportWarning IndentationError IndexError \
    InterruptedError IsADirectoryError KeyError KeyboardInterrupt LookupError MemoryError ModuleNotFoundError \
    NameError NotADirectoryError NotImplemented NotImplementedError OSError OverflowError \
    PendingDeprecationWarning PermissionError ProcessLookupError PythonFinalizationError RecursionError \
    ReferenceError ResourceWarning RuntimeError RuntimeWarning StopAsyncIteration StopIteration SyntaxError \
    SyntaxWarning SystemError SystemExit TabError TimeoutError TypeError UnboundLocalError UnicodeDecodeError \
    UnicodeEncodeError UnicodeError UnicodeTranslateError UnicodeWarning UserWarning ValueError Warning \
    ZeroDivisionError __build_class__ __debug__ __doc__ __import__ __loader__ __name__ __package__ __spec__ abs \
    aiter all anext any ascii bin bool breakpoint bytearray bytes callable chr classmethod compile complex \
    copyright credits delattr dict dir divmod enumerate eval exec exit filter float format frozenset getattr \
    globals hasattr hash help hex id input int isinstance issubclass iter len license list locals map max \
    memoryview min next object oct open ord pow print property quit range repr reversed round set setattr slice \
    sorted staticmethod str sum super tuple type vars zip \
    inf nan NoneType torch device fx_pytree pytree";

#[derive(Default)]
struct Interner {
    ids: FxHashMap<Arc<str>, Base>,
    texts: Vec<Arc<str>>,
    keywords: Base,
    illegal: Base,
}

impl Interner {
    fn new() -> Interner {
        let mut this = Interner::default();
        KEYWORDS.split_whitespace().for_each(|w| _ = this.add(w));
        this.keywords = this.texts.len() as Base;
        BUILTINS.split_whitespace().for_each(|w| _ = this.add(w));
        this.illegal = this.texts.len() as Base;
        this
    }

    fn add(&mut self, text: &str) -> Base {
        if let Some(&id) = self.ids.get(text) {
            return id;
        }
        let id = self.texts.len() as Base;
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.ids.insert(text, id);
        id
    }
}

static INTERNER: Lazy<RwLock<Interner>> = Lazy::new(|| RwLock::new(Interner::new()));

/// How many bases, counted from 0, are keywords, and how many are keywords or builtins.
pub(super) static ILLEGAL: Lazy<(Base, Base)> = Lazy::new(|| {
    let interner = INTERNER.read();
    (interner.keywords, interner.illegal)
});

/// The number that stands for `text` as long as the process lives.
pub fn intern(text: &str) -> Base {
    match lookup(text) {
        Some(base) => base,
        None => INTERNER.write().add(text),
    }
}

/// The number of a text that was interned before.
pub(super) fn lookup(text: &str) -> Option<Base> {
    INTERNER.read().ids.get(text).copied()
}

/// The text of a base; empty for a number that [`intern`] never gave.
pub fn base_str(base: Base) -> Arc<str> {
    match INTERNER.read().texts.get(base as usize) {
        Some(text) => text.clone(),
        None => Arc::from(""),
    }
}

/// A name in a scope: `add` is (`add`, -1), `add_2` is (`add`, 2).
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub struct Name {
    /// The interned text before the number.
    pub base: Base,
    /// The number, or [`Name::NO_NUM`].
    pub num: i32,
}

impl Name {
    /// The number of a name that has none.
    pub const NO_NUM: i32 = -1;
    /// Numbers with more digits stay part of the base, which leaves room to count upwards.
    const MAX_DIGITS: usize = 9;

    /// A name without a number. `base` must not itself end in a number; use [`Name::parse`] where it may.
    pub fn of(base: Base) -> Name {
        Name {
            base,
            num: Name::NO_NUM,
        }
    }

    /// Splits a trailing `_<digits>` off, as torch.fx does. It does not [`sanitize`].
    ///
    /// Digits that an integer would not print back (`a_007`, or more than nine of them) stay part of the base.
    pub fn parse(text: &str) -> Name {
        match split_number(text) {
            Some((base, num)) => Name {
                base: intern(base),
                num,
            },
            None => Name::of(intern(text)),
        }
    }

    /// The name that a schema, attribute path or argument of this text asks for.
    pub fn candidate(text: &str) -> Name {
        Name::parse(&sanitize(text))
    }

    /// The text before all numbers at the end: `layers` of `layers_0_1`. Names of different families never compete
    /// for the same number in a [`super::Namespace`].
    pub fn family(self) -> Base {
        let mut base = self.base;
        loop {
            let shorter = Name::parse(&base_str(base));
            if shorter.num == Name::NO_NUM {
                return base;
            }
            base = shorter.base;
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base_str(self.base))?;
        if self.num < 0 {
            Ok(())
        } else {
            write!(f, "_{}", self.num)
        }
    }
}

/// The text before a number at the end, and the number.
fn split_number(text: &str) -> Option<(&str, i32)> {
    let (base, digits) = text.rsplit_once('_')?;
    let canonical = digits == "0" || !digits.starts_with('0');
    let short = (1..=Name::MAX_DIGITS).contains(&digits.len());
    let all = digits.bytes().all(|b| b.is_ascii_digit());
    match !base.is_empty() && short && canonical && all {
        true => Some((base, digits.parse().ok()?)),
        false => None,
    }
}

/// The text of the [`Name::family`] that this name has; nothing is interned.
pub fn family_text(mut text: &str) -> &str {
    while let Some((base, _)) = split_number(text) {
        text = base;
    }
    text
}

/// Makes an identifier of a schema's name, an attribute path or an argument's name.
///
/// Dots and other illegal characters become `_`, a leading digit gets `sub_` in front, and the two names that answer
/// questions in Python (`_code`, `_shape`) become `sub_code` and `sub_shape`.
pub fn sanitize(candidate: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    match candidate {
        "" => "_unnamed".to_owned(),
        "_code" | "_shape" => format!("sub{candidate}"),
        _ if candidate.starts_with(|c: char| c.is_ascii_digit()) => {
            "sub_".chars().chain(candidate.chars().map(legal)).collect()
        }
        _ => candidate.chars().map(legal).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(text: &str) -> (String, i32) {
        let name = Name::parse(text);
        (base_str(name.base).to_string(), name.num)
    }

    #[test]
    fn splits_like_torch_fx() {
        for (text, base, num) in [
            ("add", "add", -1),
            ("add_2", "add", 2),
            ("add_0", "add", 0),
            ("add_", "add_", -1),
            ("add__1", "add_", 1),
            ("a_1_2", "a_1", 2),
            ("layers_8_mlp", "layers_8_mlp", -1),
            ("_1", "_1", -1),
            ("__1", "_", 1),
            ("a_007", "a_007", -1),
            ("a_00", "a_00", -1),
            ("a_9999999999999", "a_9999999999999", -1),
            ("conv2d", "conv2d", -1),
            ("", "", -1),
        ] {
            assert_eq!(split(text), (base.to_owned(), num), "{text}");
        }
    }

    #[test]
    fn a_family_is_the_text_before_all_numbers() {
        for text in ["add", "layers_0_1", "a_1_b_2", "a_007", "_1", "__1", ""] {
            let family = Name::parse(text).family();
            assert_eq!(&*base_str(family), family_text(text), "{text}");
        }
        assert_eq!(family_text("layers_0_1"), "layers");
    }

    #[test]
    fn sanitizes() {
        for (from, to) in [
            ("layers.8", "layers_8"),
            ("0", "sub_0"),
            ("0.1", "sub_0_1"),
            ("_code", "sub_code"),
            ("_shape", "sub_shape"),
            ("_weight", "_weight"),
            ("a-b c", "a_b_c"),
            ("größe", "gr__e"),
            ("", "_unnamed"),
        ] {
            assert_eq!(sanitize(from), to);
        }
    }

    #[test]
    fn bases_are_shared_and_foreign_ones_harmless() {
        assert_eq!(intern("linear"), intern("linear"));
        assert_eq!(&*base_str(intern("linear")), "linear");
        assert_eq!(&*base_str(Base::MAX), "");
    }

    proptest! {
        #[test]
        fn print_of_parse_is_identity(text in "[a-c_0-3]{0,12}|\\PC{0,8}") {
            prop_assert_eq!(Name::parse(&text).to_string(), text);
        }

        #[test]
        fn sanitized_is_an_identifier(text in any::<String>()) {
            let name = sanitize(&text);
            prop_assert!(name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()));
            prop_assert!(!name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()));
            prop_assert_eq!(sanitize(&name), name);
        }
    }
}
