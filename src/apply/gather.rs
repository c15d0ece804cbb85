//! A copy of a strided view as a dense tensor, for probes and records.

use super::place::rows;
use super::view::View;
use graphpatch_core::error::Result;
use graphpatch_core::tensor::HostTensor;

/// The view's elements in row-major order.
pub fn gather(view: &View<'_>) -> Result<HostTensor> {
    let mut tensor = HostTensor::zeros(view.dtype, view.sizes)?;
    match view.dtype.size() {
        1 => copy::<u8>(view, tensor.bytes_mut()),
        2 => copy::<[u8; 2]>(view, tensor.bytes_mut()),
        4 => copy::<[u8; 4]>(view, tensor.bytes_mut()),
        8 => copy::<[u8; 8]>(view, tensor.bytes_mut()),
        _ => copy::<[u8; 16]>(view, tensor.bytes_mut()),
    }
    Ok(tensor)
}

/// Copies in row-major order; `T` is as large as an element and has no alignment of its own.
fn copy<T: Copy>(view: &View<'_>, out: &mut [u8]) {
    let mut dims: Vec<(usize, isize)> = Vec::with_capacity(view.sizes.len() + 1);
    for (size, stride) in view.sizes.iter().zip(view.strides) {
        let (size, stride) = (*size as usize, *stride as isize);
        match dims.last_mut() {
            Some(outer) if outer.1 == stride * size as isize => *outer = (outer.0 * size, stride),
            _ => dims.push((size, stride)),
        }
    }
    if dims.is_empty() {
        dims.push((1, 1));
    }
    if dims.iter().any(|(size, _)| *size == 0) {
        return;
    }
    let mut rest = out.as_mut_ptr().cast::<T>();
    let Some(start) = view.element::<T>(0) else {
        return;
    };
    rows(start, &dims, |first, len, stride| {
        // SAFETY: the row lies inside the view, which may be read (`View::new`); `out` has room for all its elements,
        // of which this row is the next `len`, and is memory of its own.
        unsafe {
            if stride == 1 {
                std::ptr::copy_nonoverlapping(first, rest, len);
            } else {
                for i in 0..len {
                    rest.add(i)
                        .write(first.wrapping_offset(i as isize * stride).read());
                }
            }
        }
        rest = rest.wrapping_add(len);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use graphpatch_core::tensor::Dtype;

    #[test]
    fn gathers_in_row_major_order() {
        let mut memory: Vec<i32> = (0..12).collect();
        let view = View::over(&mut memory, &[3, 2], &[1, 6], Dtype::I32).unwrap();
        let tensor = gather(&view).unwrap();
        let expected: Vec<u8> = [0, 6, 1, 7, 2, 8]
            .into_iter()
            .flat_map(i32::to_ne_bytes)
            .collect();
        assert_eq!(tensor.bytes(), expected);
        let mut none: [i32; 0] = [];
        assert!(
            gather(&View::over(&mut none, &[0, 2], &[2, 1], Dtype::I32).unwrap())
                .unwrap()
                .bytes()
                .is_empty()
        );
        let mut one = [7i32];
        let repeated =
            gather(&View::over(&mut one, &[2, 2], &[0, 0], Dtype::I32).unwrap()).unwrap();
        assert_eq!(repeated.bytes().len(), 16);
        assert!(View::over(&mut one, &[2], &[1], Dtype::I32).is_none());
        assert!(View::over(&mut one, &[1], &[1], Dtype::I64).is_none());
    }
}
