//! 01: a TorchScript module, as it is. Prints its tree, keeps a value, and switches it off.
//!
//! ```text
//! 01-script MODULE.pt GRAPH.json
//! ```

use graphpatch_tch::{Result, Session};
use tch::{CModule, Kind, Tensor};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, file, graph] = &arguments[..] else {
        eprintln!("usage: 01-script MODULE.pt GRAPH.json");
        std::process::exit(2);
    };
    let module = CModule::load(file)?;
    let x = Tensor::f_ones([2, 4], (Kind::Float, tch::Device::Cpu))?;
    let sum = || -> Result<f64> {
        Ok(module
            .forward_ts(&[&x])?
            .sum(Kind::Double)
            .double_value(&[]))
    };

    let session = Session::attach()?;
    session.record(true)?;
    println!("bare {:.6}", sum()?);
    session.record(false)?;
    let graphs = session.graphs()?;
    for graph in graphs.iter() {
        print!("{graph}");
        println!("{:?}", graph.find("**.linear")?);
    }
    graphs.save(graph)?;

    // Patches at one node act in the order in which they were made: the probe sees the value before the zero.
    let probe = session.patch("relu=probe")?;
    let zero = session.patch("relu[:, :8]=zero")?;
    println!("patched {:.6}", sum()?);
    println!(
        "kept {:?}, {} applied",
        probe.kept()?[0].size(),
        zero.counts()?.applied
    );
    zero.enable(false)?;
    println!("switched off {:.6}", sum()?);

    // A path that is not there is refused before anything runs.
    if let Err(why) = session.patch("rleu=zero") {
        println!("refused: {why}");
    }
    Ok(())
}
