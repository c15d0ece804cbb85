//! A program of a Rust user of libtorch (by the crate tch): it looks inside a TorchScript module and inside a model of
//! its own, and patches both, by the crate graphpatch-tch.
//!
//! ```text
//! tch-session GIVEN OUT
//! ```
//!
//! GIVEN has `script.pt` (a TupleOutputModule), `net.safetensors` (the weights of `Net` below) and `values.safetensors`;
//! the trees and everything that was computed are written to OUT.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use graphpatch_tch::{Counts, Root, Scope, Session, Spec, Status, Value};
use tch::nn::{self, Module};
use tch::{CModule, Device, IValue, Tensor};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What was computed, by name.
type Computed = Vec<(String, Tensor)>;

fn main() -> Outcome<()> {
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [given, out] = &folders[..] else {
        return Err("usage: tch-session GIVEN OUT".into());
    };
    tch::set_num_threads(1);
    let mut computed = Computed::new();
    script(given, out, &mut computed)?;
    net(given, out, &mut computed)?;
    Tensor::write_safetensors(&computed, out.join("computed.safetensors"))?;
    println!("all as it must be");
    Ok(())
}

/// One of the tensors that the test made.
fn value(given: &Path, name: &str) -> Outcome<Tensor> {
    let values = Tensor::read_safetensors(given.join("values.safetensors"))?;
    let found = values.into_iter().find(|(key, _)| key == name);
    Ok(found.ok_or_else(|| format!("no value {name}"))?.1)
}

fn times(matched: u64, applied: u64, failed: u64) -> Counts {
    Counts {
        matched,
        applied,
        failed,
    }
}

/// The numbers of a tensor in row-major order, and its shape: data that could also come from outside of libtorch.
fn numbers(tensor: &Tensor) -> Outcome<(Vec<f32>, Vec<i64>)> {
    Ok((Vec::try_from(tensor.flatten(0, -1))?, tensor.size()))
}

// --- a TorchScript module ---------------------------------------------------------------------------------------------

/// Runs the module, which returns a pair.
fn pair(module: &CModule, x: &Tensor) -> Result<(Tensor, Tensor), tch::TchError> {
    match module.forward_is(&[IValue::Tensor(x.shallow_clone())])? {
        IValue::Tuple(mut results) if results.len() == 2 => {
            match (results.remove(0), results.remove(0)) {
                (IValue::Tensor(first), IValue::Tensor(second)) => Ok((first, second)),
                other => panic!("not two tensors: {other:?}"),
            }
        }
        other => panic!("not a pair: {other:?}"),
    }
}

/// The same on another thread.
fn elsewhere(module: &CModule, x: &Tensor) -> Result<(Tensor, Tensor), tch::TchError> {
    let x = x.shallow_clone();
    thread::scope(|scope| {
        scope
            .spawn(move || pair(module, &x))
            .join()
            .expect("no panic")
    })
}

fn script(given: &Path, out: &Path, computed: &mut Computed) -> Outcome<()> {
    let module = CModule::load(given.join("script.pt"))?;
    let x = value(given, "x")?;
    let mut keep = |name: &str, (first, second): (Tensor, Tensor)| {
        computed.push((format!("{name}.0"), first.detach().contiguous()));
        computed.push((format!("{name}.1"), second.detach().contiguous()));
    };
    keep("bare", pair(&module, &x)?);

    let session = Session::attach()?;
    session.record(true)?;
    keep("recorded", pair(&module, &x)?);
    session.record(false)?;
    let graphs = session.graphs()?;
    assert_eq!(graphs.iter().count(), 1);
    fs::write(
        out.join("script.txt"),
        graphs.iter().next().expect("one").tree("")?,
    )?;

    // Text can express most patches.
    let zero = session.patch("linear.linear[0]=zero")?;
    keep("zero", pair(&module, &x)?);
    assert_eq!(zero.counts()?, times(1, 1, 0));
    drop(zero);

    // Numbers that need not come from libtorch, by DLPack.
    let (delta, shape) = numbers(&value(given, "delta")?)?;
    let spec = Spec::new("add")?
        .slice("[1:]")?
        .add(&Value::from_slice(&delta, &shape)?)?;
    let add = session.register(&spec)?;
    keep("add", pair(&module, &x)?);
    drop(add);

    // libtorch's own tensor, and its gradient.
    let replacement = value(given, "replacement")?.set_requires_grad(true);
    let replace = session
        .register(&Spec::new("linear_1.output")?.replace(&Value::from_tensor(&replacement)?)?)?;
    let (first, second) = pair(&module, &x)?;
    (&second * &second).sum(tch::Kind::Float).backward();
    keep("replace", (first, second));
    keep("gradient", (replacement.grad(), x.shallow_clone()));
    drop(replace);

    // A function in Rust, with tch's tensors; a probe in front of it sees the value as it was.
    let before = session.patch("linear_0.output=probe")?;
    let custom = Spec::new("linear.output")?.custom(|value| Some(value.tanh() * 2))?;
    let custom = session.register(&custom)?;
    let after = session.patch("linear.output=record:8")?;
    keep("custom on a thread", elsewhere(&module, &x)?);
    keep("custom", pair(&module, &x)?);
    assert_eq!(custom.counts()?, times(2, 2, 0));
    let (mut first, mut second) = (before.kept()?, after.kept()?);
    assert_eq!((first.len(), second.len()), (1, 2));
    keep("kept", (first.remove(0), second.remove(1)));
    drop((before, custom, after));

    // Only on the thread that asked for it.
    let here = session.register(
        &Spec::new("add")?
            .replace(&Value::from_slice(&[0.0f32], &[])?)?
            .this_thread()?,
    )?;
    keep("not here", elsewhere(&module, &x)?);
    keep("here", pair(&module, &x)?);
    drop(here);

    refused(&session, &module, &x)?;
    drop(session);
    keep("closed", pair(&module, &x)?);
    Ok(())
}

/// Errors of patches are reported, some at once and others when the model runs.
fn refused(session: &Session, module: &CModule, x: &Tensor) -> Outcome<()> {
    let error = session
        .patch("linear.outputs=zero")
        .err()
        .expect("there is no such node");
    assert_eq!(error.status(), Some(Status::GP_STATUS_PATH));
    assert!(error.to_string().contains("linear.output"), "{error}");
    let error = session.patch("linear[=zero").err().expect("no patch");
    assert_eq!(error.status(), Some(Status::GP_STATUS_PARSE));

    let wide =
        session.register(&Spec::new("add")?.add(&Value::from_slice(&[0.0f32; 7], &[7])?)?)?;
    let error = pair(module, x).expect_err("it does not fit");
    assert!(error.to_string().contains("(3, 2)"), "{error}");
    assert_eq!(wide.counts()?, times(1, 0, 1));
    drop(wide);

    let panics = session.register(&Spec::new("add")?.custom(|_| panic!("on purpose"))?)?;
    let error = pair(module, x).expect_err("the function failed");
    assert!(error.to_string().contains("add"), "{error}");
    assert!(
        error.to_string().contains("it panicked: on purpose"),
        "{error}"
    );
    assert_eq!(panics.counts()?, times(1, 0, 1));
    Ok(())
}

// --- a model in Rust --------------------------------------------------------------------------------------------------

/// Two layers, written as is usual with tch, each with the scope of its calls.
struct Net {
    root: Root,
    up: (nn::Linear, Scope),
    down: (nn::Linear, Scope),
}

impl Net {
    fn load(weights: &Path) -> Outcome<Self> {
        let mut store = nn::VarStore::new(Device::Cpu);
        let path = store.root();
        let up = nn::linear(&path / "up", 4, 8, Default::default());
        let down = nn::linear(&path / "down", 8, 2, Default::default());
        store.load(weights)?;
        Ok(Self {
            root: Root::new("Net", &["x"], store.variables())?,
            up: (up, Scope::new("", "up", "Linear", &["input"])?),
            down: (down, Scope::new("", "down", "Linear", &["input"])?),
        })
    }

    fn forward(&self, session: &Session, x: &Tensor) -> graphpatch_tch::Result<Tensor> {
        let ((up, up_scope), (down, down_scope)) = (&self.up, &self.down);
        self.root.run(session, [x], |[x]| {
            let hidden = up_scope.call([&x], |[x]| Ok(up.forward(&x)))?.relu();
            let result = down_scope.call([&hidden], |[hidden]| Ok(down.forward(&hidden)))?;
            Ok(result + x.narrow(1, 0, 2))
        })
    }
}

fn net(given: &Path, out: &Path, computed: &mut Computed) -> Outcome<()> {
    let net = Net::load(&given.join("net.safetensors"))?;
    let y = value(given, "y")?;
    let session = Session::attach()?;
    let mut keep =
        |name: &str, result: Tensor| computed.push((name.into(), result.detach().contiguous()));

    keep("net bare", net.forward(&session, &y)?);
    session.record(true)?;
    keep("net recorded", net.forward(&session, &y)?);
    session.record(false)?;
    let graphs = session.graphs()?;
    fs::write(
        out.join("net.txt"),
        graphs.get("Net").expect("recorded").tree("")?,
    )?;

    for patch in [
        "x=add:1",
        "up.weight[0]=zero",
        "up.output[:, 1]=replace:3",
        "relu=add:0.5",
        "down.input=zero",
        "output[..., -1]=zero",
    ] {
        let held = session.patch(patch)?;
        keep(patch, net.forward(&session, &y)?);
        assert_eq!(held.counts()?, times(1, 1, 0), "{patch}");
    }
    let probe = session.patch("down.input=probe")?;
    keep("net after", net.forward(&session, &y)?);
    keep("net kept", probe.kept()?.remove(0));

    drop(probe);
    let wide = session.patch("up.input[:, 9]=zero")?;
    let error = net.forward(&session, &y).expect_err("it does not fit");
    assert_eq!(error.status(), Some(Status::GP_STATUS_REFUSED));
    assert!(error.to_string().contains("up.input"), "{error}");
    drop(wide);
    keep("net again", net.forward(&session, &y)?);
    Ok(())
}
