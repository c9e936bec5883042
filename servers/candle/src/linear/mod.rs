//! Linear layers: where the time goes.
//!
//! [`affine8`] is the CPU's fast path, integer products on packed bytes that grow with the batch; [`tensor`] are
//! candle's own products, dense or on quantised blocks, on any device.

pub mod activations;
pub mod affine8;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;
pub mod tensor;

/// The instructions that integer products use.
#[derive(Debug, Clone, Copy)]
pub enum Kernel {
    /// AVX-512 with VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(avx512::Avx512Vnni),
    /// AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    /// Those the compiler chose.
    Scalar,
}

impl Kernel {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => "AVX-512 VNNI",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "AVX2",
            Self::Scalar => "scalar",
        }
    }

    /// All that this processor has, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            kernels.extend(avx512::Avx512Vnni::detect().map(Self::Avx512Vnni));
            kernels.extend(avx2::Avx2::detect().map(Self::Avx2));
        }
        kernels.push(Self::Scalar);
        kernels
    }
}
