"""Pairwise registration by SimpleITK: what a maintained library does without masks and signal model."""

import numpy as np
import SimpleITK as sitk  # noqa: N813  # as all its users do
import torch
from jaxtyping import Float
from torch import Tensor

from tests.benchmarks.moving import MovingSeries

_MESH = (5, 5)
_BINS = 32
_MARGIN_MM = 30.0


def pairwise(series: MovingSeries) -> Float[Tensor, "ti 2 row col"]:
    """Displacement of each echo onto the reference [pixel]: rigid, then B-splines, by mutual information.

    The metric is read within 30 mm of the true heart: without it chest and abdomen decide. Steps as in
    SimpleITK's own examples: Mattes metric, regular step descent for the rigid part, LBFGS for the splines.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(torch.get_num_threads())
    near = _near(series)
    fixed = _image(series.echoes[series.reference], series.pixel_spacing_mm)
    field = torch.zeros_like(series.moved_px)
    for echo in range(len(series.echoes)):
        if echo == series.reference:
            continue
        moving = _image(series.echoes[echo], series.pixel_spacing_mm)
        found = _register(fixed, moving, near)
        to_field = sitk.TransformToDisplacementField(
            found, sitk.sitkVectorFloat64, fixed.GetSize(), fixed.GetOrigin(), fixed.GetSpacing()
        )
        # ITK's components are (x, y) [mm], that is (col, row).
        mm = torch.from_numpy(sitk.GetArrayFromImage(to_field)).float()
        field[echo, 0] = mm[..., 1] / series.pixel_spacing_mm[0]
        field[echo, 1] = mm[..., 0] / series.pixel_spacing_mm[1]
    return field


def _image(pixels: Float[Tensor, "row col"], spacing_mm: tuple[float, float]) -> sitk.Image:
    image = sitk.GetImageFromArray(pixels.numpy().astype(np.float32))
    image.SetSpacing((spacing_mm[1], spacing_mm[0]))
    return image


def _near(series: MovingSeries) -> sitk.Image:
    """Mask of the heart with a margin."""
    heart = sitk.GetImageFromArray(series.labels[series.reference].any(0).numpy().astype(np.uint8))
    radius = round(_MARGIN_MM / series.pixel_spacing_mm[0])
    near = sitk.BinaryDilate(heart, (radius, radius))
    near.SetSpacing((series.pixel_spacing_mm[1], series.pixel_spacing_mm[0]))
    return near


def _register(fixed: sitk.Image, moving: sitk.Image, near: sitk.Image) -> sitk.Transform:
    """Rigid, then splines on top."""
    center = sitk.CenteredTransformInitializer(
        near, near, sitk.Euler2DTransform(), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    rigid = _method(near)
    rigid.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 60)
    rigid.SetOptimizerScalesFromPhysicalShift()
    rigid.SetShrinkFactorsPerLevel([2, 1])
    rigid.SetSmoothingSigmasPerLevel([2.0, 1.0])
    rigid.SetInitialTransform(center, inPlace=False)
    first = rigid.Execute(fixed, moving)
    splines = _method(near)
    splines.SetOptimizerAsLBFGSB(numberOfIterations=25)
    splines.SetShrinkFactorsPerLevel([1])
    splines.SetSmoothingSigmasPerLevel([1.0])
    splines.SetMovingInitialTransform(first)
    splines.SetInitialTransform(sitk.BSplineTransformInitializer(fixed, list(_MESH)), inPlace=False)
    bent = splines.Execute(fixed, moving)
    both = sitk.CompositeTransform(2)
    both.AddTransform(first)
    both.AddTransform(bent)
    return both


def _method(near: sitk.Image) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricFixedMask(near)
    method.SetInterpolator(sitk.sitkLinear)
    return method
