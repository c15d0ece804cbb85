//! What `torch.save` writes: a zip file without compression, in which `data.pkl` describes the tensors and `data/KEY` are their
//! storages. Nothing of it is run (`pickle.rs`).

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use zip::ZipArchive;
use zip::read::ZipFile;
use zip::result::ZipError;

use super::input::{fill, open};
use super::missing::missing;
use super::pickle::{self, Id, Object, Objects};
use super::{Dtype, HostTensor};
use crate::error::Result;
use crate::fault::Fault;

/// The description of a large model's state dict has a few MiB.
const LONGEST_PICKLE: u64 = 64 << 20;
/// An expanded tensor may have more elements than its storage, but not without end.
const MOST_EXPANDED: u64 = 64 << 20;
const WANTED: &str = "a value is a tensor, or a dict of tensors, that torch.save wrote";

type Archive = ZipArchive<BufReader<File>>;

/// Reads the tensor that was saved or, with a key, that entry of a saved dict.
///
/// # Errors
///
/// [`crate::error::Error::File`] for a file that cannot be read, [`crate::error::Error::Format`] for one that is damaged, has no
/// such key, or has there what is no plain tensor.
pub fn read(file: &Path, key: Option<&str>) -> Result<HostTensor> {
    let (opened, length) = open(file)?;
    parse(opened, length, key).map_err(|fault| fault.of(file))
}

fn parse(opened: File, length: u64, key: Option<&str>) -> Result<HostTensor, Fault> {
    let mut archive = ZipArchive::new(BufReader::new(opened)).map_err(|why| match why {
        ZipError::Io(why) => Fault::at("the file", why.to_string()),
        why => Fault::at(
            "the file",
            format!("not what torch.save of PyTorch 1.6 or later writes ({why})"),
        ),
    })?;
    let folder = folder(&archive)?;
    let mut text = Vec::new();
    let pickle = entry(&mut archive, &format!("{folder}/data.pkl"))?;
    if pickle.size() > LONGEST_PICKLE {
        return Err(Fault::at("data.pkl", "it is larger than 64 MiB"));
    }
    let mut pickle = pickle.take(LONGEST_PICKLE);
    let read = pickle.read_to_end(&mut text);
    read.map_err(|why| Fault::at("data.pkl", why.to_string()))?;
    drop(pickle);
    let objects = pickle::parse(&text)?;
    let place = match key {
        Some(key) => format!("key {key:?}"),
        None => "the value".to_owned(),
    };
    let described = chosen(&objects, key)
        .and_then(|id| Described::of(&objects, id))
        .map_err(|why| Fault::at(&*place, why))?;
    little_endian(&mut archive, &folder)?;
    described.load(&mut archive, &folder, length, &place)
}

/// The folder in which everything lies; it is named after the file.
fn folder(archive: &Archive) -> Result<String, Fault> {
    let mut folders = archive.file_names().filter_map(|name| {
        let name = name.ok()?;
        let folder = name.strip_suffix("/data.pkl")?;
        (!folder.contains('/')).then(|| folder.to_owned())
    });
    let found = folders.next();
    found.ok_or_else(|| Fault::at("the file", format!("a zip file without data.pkl; {WANTED}")))
}

fn entry<'a>(archive: &'a mut Archive, name: &str) -> Result<ZipFile<'a, BufReader<File>>, Fault> {
    archive
        .by_name(name)
        .map_err(|why| Fault::at(name, why.to_string()))
}

/// Checks that the file is little-endian. Files of old PyTorch versions do not say so; they were.
fn little_endian(archive: &mut Archive, folder: &str) -> Result<(), Fault> {
    let name = format!("{folder}/byteorder");
    let Ok(order) = archive.by_name(&name) else {
        return Ok(());
    };
    let mut text = String::new();
    let read = order.take(16).read_to_string(&mut text);
    match (read, &*text) {
        (Ok(_), "little") => Ok(()),
        _ => Err(Fault::at(name, "only little-endian files are read")),
    }
}

/// The object that is meant.
fn chosen(objects: &Objects, key: Option<&str>) -> Result<Id, String> {
    let entries = match (objects.get(objects.result), key) {
        (Object::Dict(entries), Some(_)) => entries,
        (Object::Dict(entries), None) => {
            let keys = keys(objects, entries);
            return Err(format!(
                "the file has a dict; which of its tensors is meant? Write @file.pt#key; there are: {}",
                listed(keys)
            ));
        }
        (_, None) => return Ok(objects.result),
        (Object::Call(..), Some(_)) if Described::of(objects, objects.result).is_ok() => {
            return Err("the file has one tensor and no keys".to_owned());
        }
        (_, Some(_)) => return Err(format!("the file has no dict at its top; {WANTED}")),
    };
    let key = key.unwrap_or_default();
    // As in Python, the last of several equal keys counts.
    let found = entries.iter().rev();
    let mut found = found.filter(|(known, _)| objects.text(*known) == Some(key));
    match found.next() {
        Some((_, value)) => Ok(*value),
        None => Err(missing(keys(objects, entries), key)),
    }
}

fn keys(objects: &Objects, entries: &[(Id, Id)]) -> Vec<String> {
    let tensors = entries
        .iter()
        .filter(|(_, value)| Described::of(objects, *value).is_ok());
    tensors
        .filter_map(|(key, _)| objects.text(*key).map(str::to_owned))
        .collect()
}

fn listed(mut keys: Vec<String>) -> String {
    if keys.len() > 20 {
        keys.truncate(20);
        keys.push("...".to_owned());
    }
    keys.join(", ")
}

/// A tensor as the pickle describes it.
#[derive(Debug)]
struct Described {
    dtype: Dtype,
    /// The name of its storage, and how many bytes that has.
    storage: String,
    bytes: u64,
    first: i64,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

impl Described {
    fn of(objects: &Objects, id: Id) -> Result<Described, String> {
        let Object::Call(callee, given) = objects.get(id) else {
            return Err(format!("{} is no tensor; {WANTED}", named(objects, id)));
        };
        let given = objects.items(*given);
        match (objects.global(*callee).as_deref(), given) {
            (Some("torch._utils._rebuild_parameter"), [tensor, ..]) => match objects.get(*tensor) {
                Object::Call(inner, _)
                    if objects.global(*inner).as_deref()
                        != Some("torch._utils._rebuild_parameter") =>
                {
                    Described::of(objects, *tensor)
                }
                _ => Err("a parameter without a tensor".to_owned()),
            },
            (
                Some("torch._utils._rebuild_tensor_v2"),
                [storage, first, shape, strides, _, _, rest @ ..],
            ) => {
                let (class, storage, count) = outside(objects, *storage)?;
                let dtype = dtype_of_storage(&class)
                    .ok_or_else(|| format!("a storage of the class {class} is not read"))?;
                plain(objects, rest.first())?;
                let bytes = count.checked_mul(dtype.size() as u64);
                let bytes = bytes.ok_or("its storage is too large")?;
                let place = [*first, *shape, *strides];
                Described::new(objects, dtype, storage, bytes, place)
            }
            (
                Some("torch._utils._rebuild_tensor_v3"),
                [storage, first, shape, strides, _, _, dtype, rest @ ..],
            ) => {
                let (_, storage, bytes) = outside(objects, *storage)?;
                let name = objects.global(*dtype).unwrap_or_default();
                let bare = name.strip_prefix("torch.").unwrap_or_default();
                let known = Dtype::ALL.into_iter().find(|known| known.name() == bare);
                let dtype = known.ok_or_else(|| format!("the dtype {name} is not known"))?;
                plain(objects, rest.first())?;
                let place = [*first, *shape, *strides];
                Described::new(objects, dtype, storage, bytes, place)
            }
            _ => Err(format!(
                "{} is no plain tensor; {WANTED}",
                named(objects, id)
            )),
        }
    }

    fn new(
        objects: &Objects,
        dtype: Dtype,
        storage: String,
        bytes: u64,
        [first, shape, strides]: [Id; 3],
    ) -> Result<Described, String> {
        let numbers = |id: Id| -> Option<Vec<i64>> {
            let items = objects.items(id).iter();
            items.map(|item| objects.int(*item)).collect()
        };
        let (first, shape, strides) = (objects.int(first), numbers(shape), numbers(strides));
        match (first, shape, strides) {
            (Some(first), Some(shape), Some(strides)) if shape.len() == strides.len() => {
                let described = Described {
                    dtype,
                    storage,
                    bytes,
                    first,
                    shape,
                    strides,
                };
                match described.fits() {
                    true => Ok(described),
                    false => Err("its elements lie outside of its storage".to_owned()),
                }
            }
            _ => Err("its shape is no tuple of numbers".to_owned()),
        }
    }

    /// Whether all elements lie inside of the storage.
    fn fits(&self) -> bool {
        let Ok(elements) = i64::try_from(self.bytes / self.dtype.size() as u64) else {
            return false;
        };
        if self.first < 0 || self.shape.iter().chain(&self.strides).any(|n| *n < 0) {
            return false;
        }
        if self.shape.contains(&0) {
            return true;
        }
        let mut pairs = self.shape.iter().zip(&self.strides);
        let last = pairs.try_fold(self.first, |last, (size, stride)| {
            last.checked_add((size - 1).checked_mul(*stride)?)
        });
        last.is_some_and(|last| last < elements)
    }

    fn load(
        &self,
        archive: &mut Archive,
        folder: &str,
        length: u64,
        place: &str,
    ) -> Result<HostTensor, Fault> {
        let fail = |why: String| Fault::at(place, why);
        let needed = self
            .shape
            .iter()
            .try_fold(self.dtype.size() as u64, |n, size| {
                n.checked_mul(u64::try_from(*size).ok()?)
            });
        // Checked before memory is allocated: a damaged file may state any size.
        if self.bytes > length || needed.is_none_or(|n| n > length.max(MOST_EXPANDED)) {
            let why = "the file is too short for it; save an expanded tensor by .contiguous()";
            return Err(fail(why.to_owned()));
        }
        let name = format!("{folder}/data/{}", self.storage);
        let mut storage = HostTensor::zeros(Dtype::U8, &[self.bytes as i64])
            .map_err(|why| fail(why.to_string()))?;
        let mut source = entry(archive, &name)?;
        fill(&mut source, storage.bytes_mut(), &name)?;
        let mut tensor =
            HostTensor::zeros(self.dtype, &self.shape).map_err(|why| fail(why.to_string()))?;
        tensor.gather(storage.bytes(), self.first, &self.strides);
        if self.dtype == Dtype::Bool {
            for byte in tensor.bytes_mut() {
                *byte = u8::from(*byte != 0);
            }
        }
        Ok(tensor)
    }
}

/// Refuses the marks of a lazy conjugate or negative: the storage has other numbers than the tensor.
fn plain(objects: &Objects, marks: Option<&Id>) -> Result<(), String> {
    match marks.map(|marks| objects.get(*marks)) {
        None | Some(Object::None) => Ok(()),
        Some(Object::Dict(marks)) if marks.is_empty() => Ok(()),
        Some(_) => Err(
            "it is a lazy conjugate or negative; save it by .resolve_conj().resolve_neg()"
                .to_owned(),
        ),
    }
}

/// A storage's class, its name in the file, and its number of elements.
fn outside(objects: &Objects, id: Id) -> Result<(String, String, u64), String> {
    let Object::Outside(told) = objects.get(id) else {
        return Err("it has no storage".to_owned());
    };
    let [kind, class, key, _device, count] = objects.items(*told) else {
        return Err("its storage is described in another way".to_owned());
    };
    let count = objects.int(*count).and_then(|n| u64::try_from(n).ok());
    match (
        objects.text(*kind),
        objects.global(*class),
        objects.text(*key),
        count,
    ) {
        (Some("storage"), Some(class), Some(key), Some(count)) => {
            Ok((class, key.to_owned(), count))
        }
        _ => Err("its storage is described in another way".to_owned()),
    }
}

fn dtype_of_storage(class: &str) -> Option<Dtype> {
    Some(match class.strip_prefix("torch.")? {
        "FloatStorage" => Dtype::F32,
        "DoubleStorage" => Dtype::F64,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::Bf16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::Bool,
        "ComplexFloatStorage" => Dtype::C64,
        "ComplexDoubleStorage" => Dtype::C128,
        _ => return None,
    })
}

/// What an object is, in a message.
fn named(objects: &Objects, id: Id) -> String {
    match objects.get(id) {
        Object::Call(callee, _) => match objects.global(*callee) {
            Some(name) => format!("what {name} makes"),
            None => "an object".to_owned(),
        },
        Object::Dict(_) => "a dict".to_owned(),
        Object::List(_) => "a list".to_owned(),
        Object::Tuple(_) => "a tuple".to_owned(),
        Object::Text(_) => "a text".to_owned(),
        Object::None => "None".to_owned(),
        Object::Bool(_) | Object::Int(_) => "a number".to_owned(),
        Object::Global(module, name) => format!("{module}.{name}"),
        Object::Outside(_) => "a storage".to_owned(),
        Object::Other => "an object".to_owned(),
    }
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
