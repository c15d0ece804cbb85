//! 02: a model that is written in Rust. One line for each module makes its calls scopes.
//!
//! ```text
//! 02-scopes WEIGHTS.safetensors
//! ```

use graphpatch_tch::{Result, Root, Scope, Session};
use tch::nn::{self, Module};
use tch::{Device, Kind, Tensor};

struct Mlp {
    root: Root,
    up: (nn::Linear, Scope),
    down: (nn::Linear, Scope),
}

impl Mlp {
    fn load(weights: &str) -> Result<Self> {
        let mut store = nn::VarStore::new(Device::Cpu);
        let path = store.root();
        let up = nn::linear(&path / "up", 4, 16, Default::default());
        let down = nn::linear(&path / "down", 16, 4, Default::default());
        store.load(weights)?;
        Ok(Self {
            root: Root::new("Mlp", &["x"], store.variables())?,
            up: (up, Scope::new("", "up", "Linear", &["input"])?),
            down: (down, Scope::new("", "down", "Linear", &["input"])?),
        })
    }

    fn forward(&self, session: &Session, x: &Tensor) -> Result<Tensor> {
        let ((up, up_scope), (down, down_scope)) = (&self.up, &self.down);
        self.root.run(session, [x], |[x]| {
            let hidden = up_scope.call([&x], |[x]| Ok(up.forward(&x)))?.f_relu()?;
            down_scope.call([&hidden], |[hidden]| Ok(down.forward(&hidden)))
        })
    }
}

fn main() -> Result<()> {
    let Some(weights) = std::env::args().nth(1) else {
        eprintln!("usage: 02-scopes WEIGHTS.safetensors");
        std::process::exit(2);
    };
    let (model, session) = (Mlp::load(&weights)?, Session::attach()?);
    let x = Tensor::f_ones([2, 4], (Kind::Float, Device::Cpu))?;
    let sum = || -> Result<f64> {
        Ok(model
            .forward(&session, &x)?
            .sum(Kind::Double)
            .double_value(&[]))
    };

    session.record(true)?;
    println!("bare {:.6}", sum()?);
    session.record(false)?;
    print!("{}", session.graphs()?.get("Mlp").expect("it was recorded"));
    for patch in [
        "up.output[:, :8]=zero",
        "down.weight=zero",
        "output=add:0.5",
    ] {
        let held = session.patch(patch)?;
        println!("{patch} {:.6}", sum()?);
        drop(held);
    }
    println!("bare again {:.6}", sum()?);
    Ok(())
}
