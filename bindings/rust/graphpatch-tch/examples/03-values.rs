//! 03: what text cannot say: tensors as values, with gradients through them, and functions.
//!
//! ```text
//! 03-values MODULE.pt
//! ```

use graphpatch_tch::{Result, Session, Spec, Value};
use tch::{CModule, Device, Kind, Tensor};

fn main() -> Result<()> {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("usage: 03-values MODULE.pt");
        std::process::exit(2);
    };
    let module = CModule::load(file)?;
    let x = Tensor::f_ones([2, 4], (Kind::Float, Device::Cpu))?;
    let sum = || -> Result<Tensor> { Ok(module.forward_ts(&[&x])?.sum(Kind::Float)) };
    let session = Session::attach()?;

    // Numbers that need not come from libtorch.
    let steer = Spec::new("relu")?
        .slice("[0]")?
        .add(&Value::from_slice(&[0.25f32; 16], &[16])?)?;
    let patch = session.register(&steer)?;
    println!("steered {:.6}", sum()?.double_value(&[]));
    drop(patch);

    // libtorch's own tensor, and the gradient that it gets.
    let hidden = Tensor::f_full([2, 16], 0.5, (Kind::Float, Device::Cpu))?.set_requires_grad(true);
    let patch = session.register(&Spec::new("relu")?.replace(&Value::from_tensor(&hidden)?)?)?;
    sum()?.backward();
    println!(
        "gradient {:.6}",
        hidden.grad().sum(Kind::Double).double_value(&[])
    );
    drop(patch);

    let half = Spec::new("relu")?.custom(|value| Some(value * 0.5))?;
    let patch = session.register(&half)?;
    println!(
        "halved {:.6}, {:?}",
        sum()?.double_value(&[]),
        patch.counts()?
    );
    Ok(())
}
