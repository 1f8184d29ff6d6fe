; Operations on vectors for which Taichi has no words: `sum += a * b`, rounded
; once. vector_ops.py has the device functions; Taichi links vector_ops.bc,
; which is this file by `llvm-as vector_ops.ll` of LLVM 14: bitcode is read by
; the same and later LLVMs, and Taichi 1.7 has 15.
;
; Taichi's cache knows compiled kernels by the names in here, not by what they
; stand for: a function that changes gets another name.
target datalayout = "e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-f80:128-n8:16:32:64-S128"

define void @add_product_8(<8 x float>* %sum, <8 x float>* %a, <8 x float>* %b) alwaysinline nounwind {
  %x = load <8 x float>, <8 x float>* %a
  %y = load <8 x float>, <8 x float>* %b
  %before = load <8 x float>, <8 x float>* %sum
  %after = call <8 x float> @llvm.fma.v8f32(<8 x float> %x, <8 x float> %y, <8 x float> %before)
  store <8 x float> %after, <8 x float>* %sum
  ret void
}

define void @add_product_16(<16 x float>* %sum, <16 x float>* %a, <16 x float>* %b) alwaysinline nounwind {
  %x = load <16 x float>, <16 x float>* %a
  %y = load <16 x float>, <16 x float>* %b
  %before = load <16 x float>, <16 x float>* %sum
  %after = call <16 x float> @llvm.fma.v16f32(<16 x float> %x, <16 x float> %y, <16 x float> %before)
  store <16 x float> %after, <16 x float>* %sum
  ret void
}

declare <8 x float> @llvm.fma.v8f32(<8 x float>, <8 x float>, <8 x float>)
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
