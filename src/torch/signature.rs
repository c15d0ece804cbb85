//! What a module's forward function takes, as its demangled name tells.

/// A member function named `forward`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The class, with its namespaces.
    pub class: String,
    /// How many argument registers and words of the stack its parameters take at most. `None` where it takes a type by value whose
    /// size is not known here.
    pub words: Option<usize>,
}

/// Types of libtorch's and of the C++ library's that are passed by the address of a copy. A name that ends inside of a
/// template's brackets stands for all that begin with it.
const BY_ADDRESS: [&str; 24] = [
    "at::Tensor",
    "std::vector<",
    "std::__cxx11::basic_string<",
    "std::map<",
    "std::unordered_map<",
    "std::set<",
    "std::unordered_set<",
    "std::deque<",
    "std::list<",
    "std::tuple<",
    "std::pair<at::Tensor,",
    "std::array<at::Tensor,",
    "std::shared_ptr<",
    "std::unique_ptr<",
    "std::function<",
    "std::optional<at::Tensor>",
    "std::optional<std::vector<",
    "std::optional<std::tuple<",
    "std::optional<std::__cxx11::basic_string<",
    "c10::IValue",
    "c10::List<",
    "c10::Dict<",
    "c10::Scalar",
    "torch::OrderedDict<",
];

/// Types that are passed by value, and how many words each takes at most.
const BY_VALUE: [(&str, usize); 26] = [
    ("bool", 1),
    ("char", 1),
    ("signed char", 1),
    ("unsigned char", 1),
    ("short", 1),
    ("unsigned short", 1),
    ("int", 1),
    ("unsigned int", 1),
    ("long", 1),
    ("unsigned long", 1),
    ("long long", 1),
    ("unsigned long long", 1),
    ("float", 1),
    ("double", 1),
    ("c10::ScalarType", 1),
    ("c10::Device", 1),
    ("c10::ArrayRef<", 2),
    ("std::initializer_list<", 2),
    ("std::basic_string_view<", 2),
    ("std::optional<bool>", 1),
    ("std::optional<int>", 1),
    ("std::optional<float>", 1),
    ("std::optional<long>", 2),
    ("std::optional<double>", 2),
    ("std::optional<c10::ScalarType>", 1),
    ("std::optional<c10::Device>", 1),
];

impl Signature {
    /// Whether it is one of libtorch's classes that only call the function of the module that they hold.
    pub fn is_wrappers(&self) -> bool {
        ["torch::nn::ModuleHolder<", "torch::nn::AnyModule"]
            .iter()
            .any(|name| self.class.starts_with(name))
    }

    /// Reads `Class::forward(A, B)`. `None` for anything else.
    pub fn read(demangled: &str) -> Option<Signature> {
        let text = demangled.strip_suffix(" const").unwrap_or(demangled);
        let inside = text.strip_suffix(')')?;
        let open = opening(inside)?;
        let (name, parameters) = (&inside[..open], &inside[open + 1..]);
        let name = match name.ends_with('>') {
            true => &name[..opening(&name[..name.len() - 1])?],
            false => name,
        };
        let scope = name.strip_suffix("::forward")?;
        // A template's name comes behind the type that it returns.
        let class = scope
            .rsplit_once(' ')
            .filter(|(before, _)| balanced(before))
            .map_or(scope, |(_, class)| class);
        let words = split(parameters).into_iter().map(words_of).sum();
        Some(Signature {
            class: class.to_owned(),
            words,
        })
    }
}

/// Where the bracket opens that would be closed behind the text.
fn opening(text: &str) -> Option<usize> {
    let mut depth = 0_u32;
    for (at, letter) in text.char_indices().rev() {
        match letter {
            ')' | '>' => depth += 1,
            '(' | '<' if depth == 0 => return Some(at),
            '(' | '<' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn balanced(text: &str) -> bool {
    let count = |letters: [char; 2]| text.matches(letters).count();
    count(['(', '<']) == count([')', '>'])
}

/// The parameters, which commas outside of brackets divide.
fn split(parameters: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut depth, mut begin) = (0_u32, 0);
    for (at, letter) in parameters.char_indices() {
        match letter {
            '(' | '<' => depth += 1,
            ')' | '>' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                found.push(parameters[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    found.push(parameters[begin..].trim());
    found.retain(|one| !one.is_empty());
    found
}

fn words_of(parameter: &str) -> Option<usize> {
    let is = |known: &str| match known.ends_with(['<', ',']) {
        true => parameter.starts_with(known),
        false => parameter == known,
    };
    if parameter.ends_with(['&', '*']) || BY_ADDRESS.iter().any(|known| is(known)) {
        return Some(1);
    }
    let known = BY_VALUE.iter().find(|(known, _)| is(known));
    known.map(|(_, words)| *words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(String, Option<usize>)> {
        Signature::read(text).map(|found| (found.class, found.words))
    }

    #[test]
    fn classes_and_words() {
        let is = |text, class: &str, words| {
            assert_eq!(read(text), Some((class.into(), Some(words))), "{text}")
        };
        is("GptImpl::forward(at::Tensor)", "GptImpl", 1);
        is("a::NetImpl::forward() const", "a::NetImpl", 0);
        is(
            "Net<int, (b)2>::forward(at::Tensor const&, long, double)",
            "Net<int, (b)2>",
            3,
        );
        is(
            "at::Tensor torch::nn::SequentialImpl::forward<at::Tensor, at::Tensor&>(at::Tensor&)",
            "torch::nn::SequentialImpl",
            1,
        );
        is(
            "Net::forward(std::vector<at::Tensor, std::allocator<at::Tensor> >, c10::ArrayRef<long>)",
            "Net",
            3,
        );
    }

    #[test]
    fn values_of_several_words() {
        for (text, words) in [
            ("std::initializer_list<at::Tensor>", 2),
            ("std::basic_string_view<char, std::char_traits<char> >", 2),
            ("short, unsigned char, std::optional<int>", 3),
            ("std::optional<double>, std::pair<at::Tensor, long>", 3),
        ] {
            let text = format!("Net::forward({text})");
            assert_eq!(read(&text), Some(("Net".into(), Some(words))), "{text}");
        }
    }

    #[test]
    fn types_of_unknown_size() {
        for text in [
            "Net::forward(Options)",
            "Net::forward(at::Tensor, __int128)",
            "Net::forward(at::TensorArg)",
            "Net::forward(std::pair<long, long>)",
            "Net::forward(std::array<long, 3ul>)",
        ] {
            assert_eq!(read(text), Some(("Net".into(), None)), "{text}");
        }
    }

    #[test]
    fn other_functions() {
        for text in [
            "Net::forward_features(at::Tensor)",
            "forward(at::Tensor)",
            "Net::forward(at::Tensor)::{lambda()#1}::operator()() const",
            "decltype ({parm#1}.forward(a)) Holder<Net>::operator()<at::Tensor&>(at::Tensor&)",
            "",
            ")",
            "::forward",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
