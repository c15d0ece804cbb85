//! Python's pickles, read without running anything: they become plain data.
//!
//! A pickle is a program that may call any function. Here a call is only noted: what was called, and with what. `saved.rs` knows
//! the few calls by which PyTorch writes a tensor; everything else stays an unknown object, which cannot be used as a tensor.

use std::collections::HashMap;

use crate::fault::Fault;

/// An object, by its place in [`Objects`]: a list or dict may be in several places, and in itself.
pub(super) type Id = usize;

/// What the pickle has made.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object {
    None,
    Bool(bool),
    Int(i64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, by module and name.
    Global(String, String),
    /// What a function was called with. What is made of it later (items, attributes) is noted for an OrderedDict alone.
    Call(Id, Id),
    /// What lies outside of the pickle.
    Outside(Id),
    /// A float, bytes, a long number: nothing that a tensor's description has.
    Other,
}

/// Everything that the pickle has made, and which of it is the result.
pub(super) struct Objects {
    all: Vec<Object>,
    pub result: Id,
}

impl Objects {
    pub fn get(&self, id: Id) -> &Object {
        self.all.get(id).unwrap_or(&Object::Other)
    }

    pub fn items(&self, id: Id) -> &[Id] {
        match self.get(id) {
            Object::Tuple(items) | Object::List(items) => items,
            _ => &[],
        }
    }

    pub fn int(&self, id: Id) -> Option<i64> {
        match self.get(id) {
            Object::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A class or function as `module.name`.
    pub fn global(&self, id: Id) -> Option<String> {
        match self.get(id) {
            Object::Global(module, name) => Some(format!("{module}.{name}")),
            _ => None,
        }
    }
}

/// Reads a pickle of protocol 2 to 5.
pub(super) fn parse(bytes: &[u8]) -> Result<Objects, Fault> {
    let mut machine = Machine {
        bytes,
        at: 0,
        all: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        let begin = machine.at;
        let [code] = machine.array()?;
        if code == b'.' {
            let result = machine.pop()?;
            return Ok(Objects {
                all: machine.all,
                result,
            });
        }
        if !machine.scalar(code)? && !machine.container(code)? && !machine.object(code)? {
            let place = format!("data.pkl, byte {begin}");
            let why = format!("the instruction {code:#04x} is none that torch.save writes");
            return Err(Fault::at(place, why));
        }
    }
}

/// Pickle's stack machine.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    all: Vec<Object>,
    stack: Vec<Id>,
    /// How high the stack was at each mark.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Machine<'_> {
    fn fail<T>(&self, why: &str) -> Result<T, Fault> {
        Err(Fault::at(format!("data.pkl, byte {}", self.at), why))
    }

    fn take(&mut self, count: usize) -> Result<&[u8], Fault> {
        let end = self.at.checked_add(count);
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(taken) => {
                self.at += count;
                Ok(taken)
            }
            None => self.fail("the pickle ends too early"),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    fn text(&mut self, size: usize) -> Result<String, Fault> {
        let bytes = self.take(size)?.to_vec();
        String::from_utf8(bytes).or_else(|_| self.fail("this text is no UTF-8"))
    }

    fn line(&mut self) -> Result<String, Fault> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(size) = rest.iter().position(|byte| *byte == b'\n') else {
            return self.fail("the pickle ends too early");
        };
        let line = self.text(size)?;
        self.at += 1;
        Ok(line)
    }

    fn push(&mut self, object: Object) {
        self.stack.push(self.all.len());
        self.all.push(object);
    }

    fn pop(&mut self) -> Result<Id, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => Ok(self.stack.pop().unwrap_or_default()),
            false => self.fail("nothing is left on the stack"),
        }
    }

    fn top(&self) -> Result<Id, Fault> {
        match self.stack.last() {
            Some(id) => Ok(*id),
            None => self.fail("nothing is left on the stack"),
        }
    }

    fn since_mark(&mut self) -> Result<Vec<Id>, Fault> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => self.fail("a mark is missing"),
        }
    }

    fn tuple(&mut self, size: usize) -> Result<(), Fault> {
        let mut items = Vec::new();
        for _ in 0..size {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Object::Tuple(items));
        Ok(())
    }

    /// Numbers and texts, and what has no meaning for data.
    fn scalar(&mut self, code: u8) -> Result<bool, Fault> {
        let object = match code {
            0x80 => {
                let [protocol] = self.array()?;
                return match protocol {
                    2..=5 => Ok(true),
                    _ => self.fail("this protocol of pickle is not known; 2 to 5 are"),
                };
            }
            // The length of a frame.
            0x95 => return self.array::<8>().map(|_| true),
            b'N' => Object::None,
            0x88 => Object::Bool(true),
            0x89 => Object::Bool(false),
            b'J' => Object::Int(i64::from(i32::from_le_bytes(self.array()?))),
            b'K' => Object::Int(i64::from(u8::from_le_bytes(self.array()?))),
            b'M' => Object::Int(i64::from(u16::from_le_bytes(self.array()?))),
            0x8a => {
                let [size] = self.array()?;
                long(self.take(usize::from(size))?)
            }
            b'G' => {
                self.take(8)?;
                Object::Other
            }
            b'X' => {
                let size = self.u32()? as usize;
                Object::Text(self.text(size)?)
            }
            0x8c => {
                let [size] = self.array()?;
                Object::Text(self.text(usize::from(size))?)
            }
            // Bytes, of a short and of a long count.
            b'C' => {
                let [size] = self.array()?;
                self.take(usize::from(size))?;
                Object::Other
            }
            b'B' => {
                let size = self.u32()? as usize;
                self.take(size)?;
                Object::Other
            }
            _ => return Ok(false),
        };
        self.push(object);
        Ok(true)
    }

    /// Tuples, lists, dicts, marks and the memo.
    fn container(&mut self, code: u8) -> Result<bool, Fault> {
        match code {
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b')' => self.push(Object::Tuple(Vec::new())),
            0x85..=0x87 => self.tuple(usize::from(code - 0x84))?,
            b't' => {
                let items = self.since_mark()?;
                self.push(Object::Tuple(items));
            }
            b']' => self.push(Object::List(Vec::new())),
            b'}' => self.push(Object::Dict(Vec::new())),
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set(&items)?;
            }
            b'q' => {
                let [at] = self.array()?;
                self.memo.insert(u32::from(at), self.top()?);
            }
            b'r' => {
                let at = self.u32()?;
                self.memo.insert(at, self.top()?);
            }
            0x94 => {
                let at = u32::try_from(self.memo.len()).unwrap_or(u32::MAX);
                self.memo.insert(at, self.top()?);
            }
            b'h' => {
                let [at] = self.array()?;
                self.recall(u32::from(at))?;
            }
            b'j' => {
                let at = self.u32()?;
                self.recall(at)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Classes, calls, and what lies outside.
    fn object(&mut self, code: u8) -> Result<bool, Fault> {
        let object = match code {
            b'c' => Object::Global(self.line()?, self.line()?),
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.all.get(module), self.all.get(name)) {
                    (Some(Object::Text(module)), Some(Object::Text(name))) => {
                        Object::Global(module.clone(), name.clone())
                    }
                    _ => return self.fail("the name of a class is no text"),
                }
            }
            b'R' | 0x81 => {
                let (given, callee) = (self.pop()?, self.pop()?);
                let known = self.all.get(callee);
                let empty =
                    matches!(self.all.get(given), Some(Object::Tuple(items)) if items.is_empty());
                match known {
                    Some(Object::Global(module, name))
                        if module == "collections" && name == "OrderedDict" && empty =>
                    {
                        Object::Dict(Vec::new())
                    }
                    _ => Object::Call(callee, given),
                }
            }
            // The state of an object: a state dict's versions, or attributes of what is unknown.
            b'b' => {
                self.pop()?;
                self.top()?;
                return Ok(true);
            }
            b'Q' => Object::Outside(self.pop()?),
            _ => return Ok(false),
        };
        self.push(object);
        Ok(true)
    }

    fn recall(&mut self, at: u32) -> Result<(), Fault> {
        match self.memo.get(&at) {
            Some(id) => self.stack.push(*id),
            None => return self.fail("what was to be remembered was never made"),
        }
        Ok(())
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), Fault> {
        let list = self.top()?;
        if let Some(Object::List(known)) = self.all.get_mut(list) {
            known.extend(items);
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<(), Fault> {
        let dict = self.top()?;
        if let Some(Object::Dict(known)) = self.all.get_mut(dict) {
            known.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
        Ok(())
    }
}

/// A number of any length, least byte first.
fn long(bytes: &[u8]) -> Object {
    let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
    let mut whole = [if negative { 0xff } else { 0 }; 8];
    match whole.get_mut(..bytes.len()) {
        Some(part) => part.copy_from_slice(bytes),
        None => return Object::Other,
    }
    Object::Int(i64::from_le_bytes(whole))
}
