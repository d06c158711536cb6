"""torch.func: every transform of every pooling gives what it gives of torch's composition."""

import pytest
import torch
from support import (
    CONVENTIONS,
    ROI_POOL,
    assert_refuses,
    assert_same,
    gaussian,
    generator,
    lay_out,
    random_rois,
    torch_pyramid,
)
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import spp_ext

BINS = spp_ext.Bins([(0, 0, 1, 2), (1, 0, 2, 2), (0, 1, 2, 2)], 2)
LEVELS = (1, 2, 3)
ROIS = torch.tensor([[0.0, 0, 0, 4, 3], [1, 1, 1, 5, 4], [1, 2, 0, 3, 3]])  # inside the map, on whole cells
raw = torch.ops.spp_ext


def bins_of_torch(x):
    return torch.cat([x[:, :, : (x.shape[2] + 1) // 2].amax((2, 3)), x[:, :, x.shape[2] // 2 :].amax((2, 3))], 1)


def regions_of_torch(x, rois=ROIS):
    parts = []
    for image, x1, y1, x2, y2 in rois.int().tolist():
        parts.append(torch_pyramid(x[image : image + 1, :, y1 : y2 + 1, x1 : x2 + 1], LEVELS)[0])
    return torch.cat(parts)


# What is pooled, and the same in torch.
PAIRS = {
    "map": (lambda x: spp_ext.spatial_pyramid_pool(x, LEVELS), lambda x: torch_pyramid(x, LEVELS)[0]),
    "indices": (
        lambda x: spp_ext.spatial_pyramid_pool(x, LEVELS, return_indices=True)[0],
        lambda x: torch_pyramid(x, LEVELS)[0],
    ),
    "bins": (
        lambda x: (
            spp_ext.split_levels(
                spp_ext.spatial_pyramid_pool(x, (spp_ext.Bins([(0, 0, 1, 1), (1, 0, 2, 1)], (2, 1)),)),
                (spp_ext.Bins([(0, 0, 1, 1), (1, 0, 2, 1)], (2, 1)),),
            )[0]
            .squeeze(2)
            .transpose(1, 2)
            .flatten(1)
        ),
        bins_of_torch,
    ),
    "regions": (lambda x: spp_ext.roi_spatial_pyramid_pool(x, ROIS, LEVELS), regions_of_torch),
    "registered map": (
        lambda x: raw.spatial_pyramid_pool(x, [1, 1, 2, 2, 3, 3]),
        lambda x: torch_pyramid(x, LEVELS)[0],
    ),
    "registered regions": (
        lambda x: raw.roi_spatial_pyramid_pool(x, ROIS, [1, 1, 2, 2, 3, 3], 1.0, ROI_POOL, False),
        regions_of_torch,
    ),
}


@pytest.mark.parametrize("pool", [pool for pool, _ in PAIRS.values()], ids=PAIRS)
def test_no_samples_give_no_results(pool):
    """Of the shape that one sample has."""
    x = torch.zeros(0, 2, 3, 6, 7)
    one = pool(x.new_zeros(x.shape[1:]))
    assert vmap(pool)(x).shape == (0, *one.shape)
    assert vmap(grad(lambda x: pool(x).sum()))(x).shape == x.shape
    assert vmap(lambda x: jvp(pool, (x,), (x,))[1])(x).shape == (0, *one.shape)
    assert vmap(lambda rois: spp_ext.roi_spatial_pyramid_pool(x.new_zeros(x.shape[1:]), rois))(
        torch.zeros(0, 4, 5)
    ).shape == (0, 4, 3 * 50)


def cubes(pool):
    return lambda x: pool(x).pow(3).sum()


TRANSFORMS = {
    "grad": lambda pool: grad(cubes(pool)),
    "grad of grad": lambda pool: grad(lambda x: grad(cubes(pool))(x).square().sum()),
    "vjp": lambda pool: lambda x: vjp(pool, x)[1](pool(x))[0],
    "jvp": lambda pool: lambda x: jvp(pool, (x,), (x.cos(),)),
    "jvp of grad": lambda pool: lambda x: jvp(grad(cubes(pool)), (x,), (x.cos(),)),
    "grad of jvp": lambda pool: grad(lambda x: jvp(pool, (x,), (x.cos(),))[1].pow(3).sum()),
    "jacfwd": jacfwd,
    "jacrev": jacrev,
    "hessian": lambda pool: hessian(cubes(pool)),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    return PAIRS[request.param]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_transform_gives_what_it_gives_of_torch(pair, transform, layout):
    pool, expected = (TRANSFORMS[transform](function) for function in pair)
    x = lay_out(gaussian((2, 3, 5, 6), torch.float64), layout)
    torch.testing.assert_close(pool(x), expected(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dim", [0, 2, 4])
def test_vmap_pools_every_sample(pair, dim):
    pool, expected = pair
    samples = gaussian((4, 2, 3, 5, 6), torch.float64)
    x = samples.movedim(0, dim)
    assert_same(vmap(pool, dim)(x), torch.stack([expected(sample) for sample in samples]))
    assert_same(vmap(vmap(pool), 1)(samples[:, None].transpose(0, 1)), vmap(vmap(expected), 1)(samples[None]))
    got = vmap(grad(cubes(pool)), dim)(x)
    torch.testing.assert_close(got, torch.stack([grad(cubes(expected))(sample) for sample in samples]))
    got = grad(lambda x: vmap(pool, dim)(x).pow(3).sum())(x)
    torch.testing.assert_close(got.movedim(dim, 0), torch.stack([grad(cubes(expected))(s) for s in samples]))


def test_vmap_of_leaves_that_need_a_gradient(pair):
    pool, expected = pair
    samples = gaussian((4, 2, 3, 5, 6), torch.float64).requires_grad_()
    (got,) = torch.autograd.grad(vmap(pool)(samples).pow(3).sum(), samples)
    torch.testing.assert_close(got, torch.stack([grad(cubes(expected))(sample) for sample in samples.detach()]))


def test_gradients_are_checked_in_both_modes_and_in_batches(pair):
    x = (torch.randperm(180, generator=generator(0)).double() / 7).reshape(2, 3, 5, 6).requires_grad_()
    pool = pair[0]
    assert gradcheck(pool, (x,), check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True)
    assert gradgradcheck(pool, (x,), check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True)


def test_forward_mode_of_a_leaf_that_needs_no_gradient(pair):
    x, tangent = gaussian((2, 3, 5, 6), torch.float64), gaussian((2, 3, 5, 6), torch.float64, 1)
    found = []
    for function in pair:
        with forward_ad.dual_level(), torch.no_grad():
            found.append(forward_ad.unpack_dual(function(forward_ad.make_dual(x, tangent))).tangent)
    assert_same(*found)


# ---- boxes under vmap ----


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("boxes_dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_batched_boxes_name_the_images_of_their_sample(convention, boxes_dtype):
    samples = gaussian((3, 2, 4, 7, 8), torch.float32)
    rois = torch.stack([random_rois(5, 2, 7, 8, seed, boxes_dtype) for seed in range(3)])

    def pool(x, rois):
        return spp_ext.roi_spatial_pyramid_pool(x, rois, (1, BINS, 2), 0.9, convention=convention)

    for maps, boxes in ((0, 0), (None, 0), (0, None)):
        x, r = samples if maps == 0 else samples[0], rois if boxes == 0 else rois[0]
        pairs = [(x[i] if maps == 0 else x, r[i] if boxes == 0 else r) for i in range(3)]
        assert_same(vmap(pool, (maps, boxes))(x, r), torch.stack([pool(*pair) for pair in pairs]))
        per_sample = grad(lambda x, r: pool(x, r).square().sum())
        assert_same(vmap(per_sample, (maps, boxes))(x, r), torch.stack([per_sample(*pair) for pair in pairs]))
        tangents = vmap(lambda x, r: jvp(lambda x: pool(x, r), (x,), (x.cos(),))[1], (maps, boxes))(x, r)
        assert_same(tangents, torch.stack([jvp(lambda x, p=p: pool(x, p[1]), p[:1], (p[0].cos(),))[1] for p in pairs]))


def test_half_precision_boxes_count_past_2048_images():
    samples = torch.arange(3000.0).reshape(3000, 1, 1, 1, 1)
    rois = torch.zeros(1, 5, dtype=torch.float16)
    pooled = vmap(lambda x: spp_ext.roi_spatial_pyramid_pool(x, rois, (1,)))(samples)
    assert_same(pooled, samples.reshape(3000, 1, 1))


def test_lists_of_boxes_may_be_batched():
    samples, boxes = gaussian((3, 2, 4, 7, 8), torch.float32), random_rois(12, 1, 7, 8)[:, 1:].reshape(3, 4, 4)

    def pool(x, b):
        return spp_ext.roi_spatial_pyramid_pool(x, [b[:1], b[1:]], (1, 2))

    assert_same(vmap(pool)(samples, boxes), torch.stack([pool(*pair) for pair in zip(samples, boxes, strict=True)]))


@pytest.mark.parametrize("index", [2, 5, -1, 1e9])
def test_a_bad_index_does_not_come_to_mean_the_image_of_another_sample(index):
    samples, rois = torch.zeros(3, 2, 1, 4, 4), torch.zeros(3, 1, 5)
    rois[1, 0, 0] = index
    with pytest.raises(IndexError, match="expected batch indices of boxes"):
        vmap(lambda x, r: spp_ext.roi_spatial_pyramid_pool(x, r, (1,)))(samples, rois)


def test_an_index_just_below_zero_is_truncated_under_vmap_too():
    samples, rois = gaussian((3, 2, 1, 4, 4), torch.float32), torch.zeros(1, 5)
    rois[0, 0] = -0.5
    pooled = vmap(lambda x: spp_ext.roi_spatial_pyramid_pool(x, rois, (1,)))(samples)
    assert_same(pooled, samples[:, 0, :, 0, 0][:, None])


def test_coordinates_that_are_not_finite_are_refused_under_vmap():
    samples, rois = torch.zeros(3, 2, 1, 4, 4), torch.zeros(3, 1, 5)
    for column in range(5):
        bad = rois.clone()
        bad[2, 0, column] = torch.nan
        with pytest.raises(ValueError, match="expected finite boxes"):
            vmap(lambda x, r: spp_ext.roi_spatial_pyramid_pool(x, r, (1,)))(samples, bad)


def test_more_images_than_float32_can_count_are_refused():
    rois = torch.zeros(1, 5)
    assert_refuses(
        ValueError,
        "spp_ext.vmap: expected at most 2^24 images with float32 boxes, got 16777216 x 2",
        lambda: spp_ext._torch.batching.fold_rois(rois, None, 2**24, 2),
    )
