"""Error of scan means against the ideal on digital trials of several seeds: no motion, SNR 40, true masks."""

import torch
from rich.console import Console
from rich.table import Table

from cmrcore.phantom import SimulatedScan, simulate_scan
from cmrcore.phantom.truth import BLOOD_EROSION_MM
from cmrcore.quantify import blood_t1, ecv_map, erode_mask
from cmrcore.relaxation import fit_t1
from flows.simulate import SCHEME_NATIVE, SCHEME_NATIVE_11, SCHEME_POST

SEEDS = (0, 1, 2, 3, 4, 5, 6, 7, 42)


def scan_errors(scan: SimulatedScan) -> tuple[float, float]:
    """Error of native myocardial T1 [ms] and of ECV [fraction], from the magnitudes."""
    myocardium, blood_pool = scan.labels[0], scan.labels[1]
    maps, blood = {}, {}
    for role, echoes in (("native", scan.native), ("post", scan.post)):
        slices = list(zip(echoes.echoes, echoes.ti_ms, myocardium, blood_pool, strict=True))
        maps[role] = [fit_t1(images, ti_ms, mask=within).t1_ms for images, ti_ms, within, _ in slices]
        fits = [
            blood_t1(
                images,
                erode_mask(pool, BLOOD_EROSION_MM, scan.geometry.pixel_spacing_mm).expand(images.shape),
                ti_ms,
            )
            for images, ti_ms, _, pool in slices
        ]
        blood[role] = [float("nan") if fit is None else fit.t1_ms.item() for fit in fits]
    ecv = [
        ecv_map(native, post, blood_native, blood_post, scan.hematocrit_fraction)
        for native, post, blood_native, blood_post in zip(
            maps["native"], maps["post"], blood["native"], blood["post"], strict=True
        )
    ]
    t1_ms = torch.stack(maps["native"])[myocardium].nanmean().item()
    return (
        t1_ms - scan.truth.scan["t1_native_ms_ideal"],
        torch.stack(ecv)[myocardium].nanmean().item() - scan.truth.scan["ecv_fraction_ideal"],
    )


def main() -> None:
    """Measure twelve scans a seed and print the mean and the worst error."""
    table = Table("seed", "T1 mean [ms]", "T1 worst [ms]", "ECV mean [points]", "ECV worst [points]")
    for seed in SEEDS:
        errors = torch.tensor(
            [
                scan_errors(
                    simulate_scan(
                        seed,
                        subject,
                        visit,
                        scheme_native=SCHEME_NATIVE_11 if subject == 2 else SCHEME_NATIVE,
                        scheme_post=SCHEME_POST,
                        difficulty="clean",
                    )
                )
                for subject in range(6)
                for visit in range(2)
            ]
        )
        t1_ms, ecv = errors[:, 0], 100 * errors[:, 1]
        figures = (t1_ms.mean(), t1_ms.abs().max(), ecv.mean(), ecv.abs().max())
        table.add_row(str(seed), *(f"{figure.item():.2f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
