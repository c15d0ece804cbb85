//! A copy of a strided view as a dense tensor, for probes and records.

use super::rows::rows;
use super::view::View;
use graphpatch_core::error::Result;
use graphpatch_core::layout;
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

/// Copies in row-major order. `T` is as large as an element and needs no alignment.
fn copy<T: Copy>(view: &View<'_>, out: &mut [u8]) {
    let axes = layout::axes(view.sizes, view.strides);
    let axes = layout::at_least_one(layout::merge(axes), 1);
    let mut rest = out.as_mut_ptr().cast::<T>();
    let Some(start) = view.element::<T>(0) else {
        return;
    };
    rows(start, &axes, |first, len, stride| {
        // SAFETY: the row lies inside the view, which may be read (`View::new`). `out` is other memory with room for all
        // elements of the view, of which this row holds the next `len`.
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
    }

    #[test]
    fn a_view_stays_in_its_memory() {
        let mut one = [7i32];
        assert!(View::over(&mut one, &[2], &[1], Dtype::I32).is_none());
        assert!(View::over(&mut one, &[2], &[-1], Dtype::I32).is_none());
        assert!(View::over(&mut one, &[1], &[1], Dtype::I64).is_none());
        let mut bytes = [0u128];
        let parts: &mut [[u8; 4]] =
            bytemuck::cast_slice_mut(bytemuck::cast_slice_mut::<u128, u8>(&mut bytes));
        assert!(View::over(parts, &[4], &[1], Dtype::F32).is_some());
        let shifted: &mut [[u8; 4]] =
            bytemuck::cast_slice_mut(&mut bytemuck::cast_slice_mut::<u128, u8>(&mut bytes)[1..5]);
        assert!(View::over(shifted, &[1], &[1], Dtype::F32).is_none());
    }
}
